//! Answers beside `/connect`.

use bytes::Bytes;
use commucat_proto::well_known::WellKnown;
use http::header::HeaderMap;
use http::{Request, StatusCode};

use crate::harness::{Server, soon};
use commucat_server::metrics::label::Hindrance;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

async fn ask(server: &Server, request: Request<()>) -> Answer {
    let stream = soon(server.connect("h2")).await;
    let (mut requests, connection) = soon(h2::client::handshake(stream)).await.unwrap();
    server.tasks.spawn(async move {
        // Its end shows in the answer.
        connection.await.ok();
    });
    let (answer, _) = requests.send_request(request, true).unwrap();
    let (parts, mut stream) = soon(answer).await.unwrap().into_parts();
    let mut body = Vec::new();
    while let Some(bytes) = soon(stream.data()).await {
        let bytes: Bytes = bytes.unwrap();
        stream.flow_control().release_capacity(bytes.len()).unwrap();
        body.extend_from_slice(&bytes);
    }
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8(body).unwrap(),
    }
}

async fn get(server: &Server, path: &str) -> Answer {
    ask(
        server,
        Request::get(format!("https://localhost{path}"))
            .body(())
            .unwrap(),
    )
    .await
}

#[tokio::test]
async fn what_stands_in_the_way_is_named() {
    let server = Server::start(&[]).await;

    *server.obstacle.0.lock().unwrap() = Some(Hindrance::Store);
    let away = get(&server, "/readyz").await;
    *server.obstacle.0.lock().unwrap() = None;
    let back = get(&server, "/readyz").await;

    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(away.body.contains(r#""cause":"store""#), "{}", away.body);
    assert_eq!(back.status, StatusCode::OK);
}

#[tokio::test]
async fn health_and_readiness_are_told() {
    let server = Server::start(&[]).await;

    let (health, ready) = (
        get(&server, "/healthz").await,
        get(&server, "/readyz").await,
    );

    assert_eq!(
        (health.status, health.body.as_str()),
        (StatusCode::OK, "ok\n")
    );
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (StatusCode::OK, "ready\n")
    );
}

#[tokio::test]
async fn the_well_known_document_is_one_that_clients_read() {
    let server = Server::start(&[("server.domain", "chat.example.org")]).await;

    let answer = get(&server, "/.well-known/commucat").await;

    assert_eq!(
        answer.headers.get("content-type").unwrap(),
        "application/json"
    );
    let document = WellKnown::decode(answer.body.as_bytes()).unwrap();
    assert_eq!(document.domain.as_str(), "chat.example.org");
    assert_eq!(document.endpoint, "https://chat.example.org:8443/connect");
    assert_eq!(document.versions, [2]);
    assert!(document.chain.is_empty());
}

#[tokio::test]
async fn unknown_paths_and_methods_get_problem_details() {
    let server = Server::start(&[]).await;

    let missing = get(&server, "/nothing/alice").await;
    let wrong = Request::delete("https://localhost/healthz")
        .body(())
        .unwrap();
    let wrong = ask(&server, wrong).await;

    assert_eq!(
        missing.headers.get("content-type").unwrap(),
        "application/problem+json"
    );
    assert_eq!(
        missing.body,
        r#"{"type":"about:blank","title":"Not Found","status":404}"#
    );
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(wrong.headers.contains_key("allow"));
    assert_eq!(
        wrong.body,
        r#"{"type":"about:blank","title":"Method Not Allowed","status":405}"#
    );
}

#[tokio::test]
async fn metrics_want_their_token() {
    let token = "a-token-of-this-test";
    let server = Server::start(&[("admin.metrics_token", token)]).await;
    let with = |authorization: &str| {
        Request::get("https://localhost/metrics")
            .header("authorization", authorization)
            .body(())
            .unwrap()
    };

    let without = get(&server, "/metrics").await;
    let wrong = ask(&server, with("Bearer a-token-of-this-tesT")).await;
    let right = ask(&server, with(&format!("Bearer {token}"))).await;

    assert_eq!(without.status, StatusCode::UNAUTHORIZED);
    assert_eq!(without.headers.get("www-authenticate").unwrap(), "Bearer");
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!(right.status, StatusCode::OK);
    assert!(
        right
            .body
            .contains("commucat_connections{protocol=\"h2\"} "),
        "{}",
        right.body
    );
}

#[tokio::test]
async fn metrics_without_a_token_are_for_this_machine_only() {
    let server = Server::start(&[]).await;
    let forwarded = Request::get("https://localhost/metrics")
        .header("x-forwarded-for", "192.0.2.1")
        .body(())
        .unwrap();

    assert_eq!(get(&server, "/metrics").await.status, StatusCode::OK);
    assert_eq!(ask(&server, forwarded).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_pages_say_where_one_is_and_load_nothing() {
    let server = Server::start(&[]).await;

    for (path, text) in [
        ("/", "This is a CommuCat server"),
        ("/i", "You are invited"),
    ] {
        let page = get(&server, path).await;

        assert_eq!(page.status, StatusCode::OK);
        assert!(page.body.contains(text), "{}", page.body);
        let policy = page
            .headers
            .get("content-security-policy")
            .unwrap()
            .to_str()
            .unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
