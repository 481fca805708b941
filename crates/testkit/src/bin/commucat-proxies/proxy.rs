//! nginx and HAProxy with the examples of `ops`: addresses and paths replaced, nothing else.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use commucat_testkit::canary::{Kind, Place};
use commucat_testkit::server::http;
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

/// Longest that a proxy takes to start or end, or to answer.
const WAIT: Duration = Duration::from_secs(30);

/// An example.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Case {
    NginxPassthrough,
    NginxTerminating,
    HaproxyPassthrough,
    HaproxyTerminating,
}

impl Case {
    pub(crate) const ALL: [Self; 4] = [
        Self::NginxPassthrough,
        Self::NginxTerminating,
        Self::HaproxyPassthrough,
        Self::HaproxyTerminating,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NginxPassthrough => "nginx-passthrough",
            Self::NginxTerminating => "nginx-terminating",
            Self::HaproxyPassthrough => "haproxy-passthrough",
            Self::HaproxyTerminating => "haproxy-terminating",
        }
    }

    pub(crate) const fn ends_tls(self) -> bool {
        matches!(self, Self::NginxTerminating | Self::HaproxyTerminating)
    }

    const fn is_nginx(self) -> bool {
        matches!(self, Self::NginxTerminating | Self::NginxPassthrough)
    }

    const fn file(self) -> &'static str {
        match self {
            Self::NginxPassthrough => "nginx/passthrough.conf",
            Self::NginxTerminating => "nginx/terminating.conf",
            Self::HaproxyPassthrough => "haproxy/passthrough.cfg",
            Self::HaproxyTerminating => "haproxy/terminating.cfg",
        }
    }

    /// A word of its configuration that it has in memory.
    pub(crate) const fn in_memory(self) -> &'static str {
        if self.is_nginx() {
            "ops-proxy-example"
        } else {
            "ops-proxy-backend"
        }
    }

    /// The example's text for this machine.
    fn adapted(self, ports: [u16; 2], certificates: &Path, place: &Path) -> Result<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../ops")
            .join(self.file());
        let mut text = fs::read_to_string(&path)?;
        let [own, server] = ports;
        let file = |name: &str| certificates.join(name).display().to_string();
        let mut replace = |from: &str, to: &str| {
            ensure!(text.contains(from), "{} lacks {from}", path.display());
            text = text.replace(from, to);
            Ok(())
        };
        replace("127.0.0.1:8443", &format!("127.0.0.1:{server}"))?;
        match self {
            Self::NginxPassthrough => {
                replace("listen 443;", &format!("listen 127.0.0.1:{own};"))?;
                replace("listen [::]:443;", "")?;
            }
            Self::NginxTerminating => {
                replace("listen 443 ssl", &format!("listen 127.0.0.1:{own} ssl"))?;
                replace("listen [::]:443 ssl http2;", "")?;
                let live = "/etc/letsencrypt/live/chat.example.org";
                replace(&format!("{live}/fullchain.pem"), &file("fullchain.pem"))?;
                replace(&format!("{live}/privkey.pem"), &file("key.pem"))?;
                replace("/etc/nginx/commucat-ca.pem", &file("ca.pem"))?;
                replace("/var/log/nginx", &place.display().to_string())?;
                replace("chat.example.org", "localhost")?;
            }
            Self::HaproxyPassthrough => {
                replace("    bind :443\n", &format!("    bind 127.0.0.1:{own}\n"))?;
                replace("    bind :::443\n", "")?;
                replace("/etc/haproxy/commucat-ca.pem", &file("ca.pem"))?;
                replace("chat.example.org", "localhost")?;
            }
            Self::HaproxyTerminating => {
                replace("bind :443 ssl", &format!("bind 127.0.0.1:{own} ssl"))?;
                let second = "    bind :::443 ssl crt /etc/haproxy/commucat.pem alpn h2,http/1.1 ssl-min-ver TLSv1.3\n";
                replace(second, "")?;
                replace("/etc/haproxy/commucat.pem", &file("both.pem"))?;
                replace("/etc/haproxy/commucat-ca.pem", &file("ca.pem"))?;
                replace("log /dev/log local0", "log stdout format raw local0")?;
                replace("chat.example.org", "localhost")?;
            }
        }
        if !self.is_nginx() {
            // As many as this machine may open.
            text = text.replace("maxconn 100000", "maxconn 500");
            // A name that only its own memory has.
            text = text.replace("backend commucat\n", "backend ops-proxy-backend\n");
            text = text.replace(
                "default_backend commucat\n",
                "default_backend ops-proxy-backend\n",
            );
        }
        Ok(text)
    }
}

/// Makes an authority and a certificate for `localhost` with the script of the repository.
pub(crate) fn make_certificate(place: &Path) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../certs/make.sh");
    let made = std::process::Command::new(script)
        .arg("localhost")
        .arg(place)
        .output()?;
    let told = String::from_utf8_lossy(&made.stderr).into_owned();
    ensure!(made.status.success(), "certs/make.sh: {told}");
    let read = |name: &str| fs::read_to_string(place.join(name));
    let both = [read("fullchain.pem")?, read("key.pem")?].concat();
    fs::write(place.join("both.pem"), both)?;
    Ok(())
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    place: TempDir,
    port: u16,
}

impl Proxy {
    /// Starts it on `port` before a server and waits until it takes connections.
    pub(crate) async fn start(
        case: Case,
        port: u16,
        server: u16,
        certificates: &Path,
    ) -> Result<Self> {
        let place = tempfile::Builder::new()
            .prefix("ops-proxy-example-")
            .tempdir()?;
        let text = case.adapted([port, server], certificates, place.path())?;
        let mut command = if case.is_nginx() {
            nginx(case, &text, place.path())?
        } else {
            let file = place.path().join("haproxy.cfg");
            fs::write(&file, text)?;
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(file);
            command
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(place.path().join("stdout"))?)
            .stderr(File::create(place.path().join("stderr"))?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} is not installed", case.name()))?;
        let mut own = Self { child, place, port };
        let deadline = Instant::now() + WAIT;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if own.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("{} does not start: {}", case.name(), own.told());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(own)
    }

    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.id().context("the proxy has ended")
    }

    /// What it complained about.
    pub(crate) fn told(&self) -> String {
        let read = |name| fs::read_to_string(self.place.path().join(name)).unwrap_or_default();
        [read("stderr"), read("error.log")].concat()
    }

    /// Opens a WebSocket to `/connect`.
    pub(crate) async fn upgrade(&self) -> Result<()> {
        let answer = self
            .ask(
                "GET /connect HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                "\r\n\r\n",
            )
            .await?;
        ensure!(
            answer.starts_with("HTTP/1.1 101"),
            "a WebSocket is answered by {answer}"
        );
        Ok(())
    }

    /// Asks for a path that is not there.
    pub(crate) async fn visit(&self, path: &str) -> Result<()> {
        let answer = self.get(path).await?;
        ensure!(
            answer.starts_with("HTTP/1.1 404"),
            "{path} is answered by {answer}"
        );
        Ok(())
    }

    /// `GET path`; the whole answer.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        let text = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        self.ask(&text, "\0").await
    }

    /// A TLS connection from an address of this machine.
    pub(crate) async fn connect_from(&self, address: Ipv4Addr) -> Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((address, 0).into())?;
        let to = (Ipv4Addr::LOCALHOST, self.port).into();
        let name = ServerName::try_from("localhost")?;
        let connecting = async {
            let tcp = socket.connect(to).await?;
            http::connector(b"http/1.1")?
                .connect(name, tcp)
                .await
                .map_err(anyhow::Error::from)
        };
        timeout(WAIT, connecting).await?
    }

    /// Sends a request and reads until `end` or the end.
    async fn ask(&self, request: &str, end: &str) -> Result<String> {
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let name = ServerName::try_from("localhost")?;
        let mut stream = http::connector(b"http/1.1")?.connect(name, tcp).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        let reading = async {
            loop {
                let length = stream.read(&mut buffer).await.unwrap_or(0);
                answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
                let text = String::from_utf8_lossy(&answer);
                if length == 0 || text.contains(end) {
                    return text.into_owned();
                }
            }
        };
        Ok(timeout(WAIT, reading).await?)
    }

    /// Ends it.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let pid = self.pid()?.to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().await?;
        ensure!(sent.success(), "no signal to the proxy");
        timeout(WAIT, self.child.wait())
            .await
            .context("the proxy does not end")??;
        Ok(())
    }

    /// All its files: logs, bodies on disk.
    pub(crate) fn files(&self) -> Result<Vec<Place>> {
        let mut found = Vec::new();
        let mut open = vec![self.place.path().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory)? {
                let path = entry?.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        let place = |path: PathBuf| {
            let bytes = fs::read(&path)?;
            Ok(Place {
                name: path.display().to_string(),
                kind: Kind::Other,
                bytes,
            })
        };
        found.into_iter().map(place).collect()
    }
}

/// The part of an nginx that an example does not show.
fn nginx(case: Case, text: &str, place: &Path) -> Result<Command> {
    fs::write(place.join("example.conf"), text)?;
    let shown = place.display();
    let around = if case == Case::NginxPassthrough {
        "include example.conf;\n".to_owned()
    } else {
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let paths = paths.map(|kind| format!("{kind}_temp_path {shown}/{kind};\n"));
        format!(
            "http {{\naccess_log {shown}/access.log;\n{}include example.conf;\n}}\n",
            paths.concat()
        )
    };
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load = if Path::new(module).exists() && case == Case::NginxPassthrough {
        format!("load_module {module};\n")
    } else {
        String::new()
    };
    let main = format!(
        "{load}daemon off;\nuser root;\nworker_processes 1;\npid {shown}/nginx.pid;\n\
         error_log {shown}/error.log info;\nevents {{ worker_connections 512; }}\n{around}"
    );
    fs::write(place.join("nginx.conf"), main)?;
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(place)
        .arg("-e")
        .arg(place.join("error.log"))
        .arg("-c")
        .arg(place.join("nginx.conf"));
    Ok(command)
}
