//! The socket as both ends use it.

use super::*;
use crate::response::Answer;

async fn pair(place: &Path) -> (Connection, Client) {
    let listener = Listener::bind(place).unwrap();
    let client = Client::connect(place).await.unwrap().unwrap();
    (listener.accept().await.unwrap(), client)
}

#[tokio::test]
async fn a_request_is_answered_over_a_socket_of_mode_600() {
    let place = tempfile::tempdir().unwrap();
    let listener = Listener::bind(place.path()).unwrap();
    let mode = fs::metadata(place.path().join(SOCKET_FILE))
        .unwrap()
        .permissions()
        .mode();

    let server = async {
        let mut connection = listener.accept().await.unwrap();
        let request = connection.receive().await.unwrap();
        connection
            .answer(&Response::Done(Answer::Healthy))
            .await
            .unwrap();
        (request, connection.receive().await.unwrap())
    };
    let operator = async {
        let mut client = Client::connect(place.path()).await.unwrap().unwrap();
        client.ask(&Request::Health).await.unwrap()
    };
    let (requests, response) = tokio::join!(server, operator);

    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(requests, (Some(Request::Health), None));
    assert_eq!(response, Response::Done(Answer::Healthy));
}

#[tokio::test]
async fn a_socket_that_a_killed_process_left_behind_is_replaced() {
    let place = tempfile::tempdir().unwrap();
    // Dropped without the wrapper that removes the file: as after `kill -9`.
    drop(UnixListener::bind(place.path().join(SOCKET_FILE)).unwrap());
    assert!(Client::connect(place.path()).await.unwrap().is_none());

    let listener = Listener::bind(place.path()).unwrap();

    assert!(Client::connect(place.path()).await.unwrap().is_some());
    drop(listener);
    assert!(!place.path().join(SOCKET_FILE).exists());
    assert!(Client::connect(place.path()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_server_that_ends_leaves_the_socket_of_its_successor() {
    let place = tempfile::tempdir().unwrap();
    let old = Listener::bind(place.path()).unwrap();
    let _new = Listener::bind(place.path()).unwrap();

    drop(old);

    assert!(Client::connect(place.path()).await.unwrap().is_some());
}

#[tokio::test]
async fn an_unknown_request_is_answered_and_the_next_one_is_read() {
    let place = tempfile::tempdir().unwrap();
    let (mut connection, mut client) = pair(place.path()).await;
    let stream = client.0.get_mut();
    stream
        .write_all(b"{\"request\":\"fly\"}\n{\"request\":\"health\"}\n")
        .await
        .unwrap();

    let request = connection.receive().await.unwrap();
    let answer: Option<Response> = read_line(&mut client.0, LINE_WAIT).await.unwrap();

    assert_eq!(request, Some(Request::Health));
    let Some(Response::Failed(failure)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(failure.kind, FailureKind::UnknownRequest);
}

#[tokio::test]
async fn a_line_that_is_too_long_or_cut_ends_the_connection() {
    let place = tempfile::tempdir().unwrap();
    let (mut connection, mut client) = pair(place.path()).await;
    let long = vec![b'a'; LINE_BYTES_MAX + 1];
    let (received, _written) =
        tokio::join!(connection.receive(), client.0.get_mut().write_all(&long));
    assert!(
        matches!(received, Err(SocketError::TooLong)),
        "{received:?}"
    );

    let (mut connection, mut client) = pair(place.path()).await;
    client
        .0
        .get_mut()
        .write_all(b"{\"request\":")
        .await
        .unwrap();
    drop(client);
    let received = connection.receive().await;
    assert!(matches!(received, Err(SocketError::Closed)), "{received:?}");
}
