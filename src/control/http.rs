//! Answers `/metrics`, `/healthz` and `/readyz` over HTTP.
//!
//! Apart from the mail on purpose: a scrape costs no shard anything, and whoever floods this port
//! cannot reach a session.
//! Limits: 32 connections, one request each, ten seconds for all of it. So 32 peers that send
//! nothing delay a scrape by seconds, and nothing else.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::{CONTENT_TYPE, Metrics};
use super::readiness::{Readiness, State};

/// Where operators look.
#[derive(Debug)]
pub struct Endpoints {
    listener: tokio::net::TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
}

impl Endpoints {
    /// Answers on `listener`. Within a tokio runtime.
    pub fn new(
        listener: TcpListener,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(Self {
            listener,
            metrics,
            readiness,
        })
    }

    /// The address they are at.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped; answers under way are then finished by the runtime, or not.
    pub async fn serve(self) -> Infallible {
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // Connections beyond the limit wait in the backlog. The semaphore is never closed.
            let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (metrics, readiness) = (Arc::clone(&self.metrics), self.readiness.clone());
                    tokio::spawn(connection(stream, metrics, readiness, permit));
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &(dyn std::error::Error + 'static),
                        "cannot accept a connection for metrics"
                    );
                    // No descriptors, most likely: the next accept would fail as fast.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    _permit: OwnedSemaphorePermit,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, &metrics, &readiness);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .max_header_size(HEADER_OCTETS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong is the peer's business: it went away, was slow, or spoke no HTTP.
    let _ = tokio::time::timeout(Duration::from_secs(CONNECTION_SECONDS_MAX), served).await;
}

fn answer<B>(
    request: &Request<B>,
    metrics: &Metrics,
    readiness: &Readiness,
) -> Response<Full<Bytes>> {
    let answer: fn(&Metrics, &Readiness) -> Response<Full<Bytes>> = match request.uri().path() {
        "/metrics" => |metrics, _| match metrics.encode() {
            Ok(text) => response(StatusCode::OK, CONTENT_TYPE, text),
            Err(_) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "cannot write the metrics\n",
            ),
        },
        "/healthz" => |_, _| plain(StatusCode::OK, "ok\n"),
        "/readyz" => |_, readiness| match readiness.state() {
            State::Ready => plain(StatusCode::OK, "ok\n"),
            State::Starting => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            State::Draining => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        _ => return plain(StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n"),
    };
    // hyper leaves the body of an answer to HEAD away, and keeps its length.
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return answer(metrics, readiness);
    }
    let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    // RFC 9110 §15.5.6: a 405 says what is allowed.
    refusal
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    refusal
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Scrapers and probes are few.
const CONNECTIONS_MAX: usize = 32;

/// From accept to close. A scraper reads 20 KiB in milliseconds.
const CONNECTION_SECONDS_MAX: u64 = 10;

/// A request comes in one segment.
const HEADER_READ_MAX: Duration = Duration::from_secs(5);

/// A scraper's header has some 500 octets; with 32 connections this is all they can hold.
const HEADER_OCTETS_MAX: usize = 16 * 1024;

/// Between two accepts of which the first failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Instant;

    use super::*;
    use crate::control::metrics::tests::{metrics, parse};

    struct Server {
        address: SocketAddr,
        metrics: Arc<Metrics>,
        readiness: Readiness,
    }

    /// Runs `test` against endpoints on a port of the kernel's choice.
    fn with_server(test: impl FnOnce(Server)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (metrics, readiness) = (Arc::new(metrics()), Readiness::new());
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let endpoints = (Arc::clone(&metrics), readiness.clone());
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let endpoints = Endpoints::new(listener, endpoints.0, endpoints.1).unwrap();
                assert_eq!(endpoints.address().unwrap(), address);
                tokio::select! {
                    never = endpoints.serve() => match never {},
                    _ = ended => {}
                }
            });
        });
        test(Server {
            address,
            metrics,
            readiness,
        });
        drop(end);
        server.join().unwrap();
    }

    impl Server {
        fn connect(&self) -> std::net::TcpStream {
            let stream = std::net::TcpStream::connect(self.address).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            stream
                .set_write_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            stream
        }

        /// Status, header and body of the answer to a request, read to the end of the connection.
        fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
            let mut stream = self.connect();
            write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            (status, head.to_ascii_lowercase(), body.to_owned())
        }
    }

    #[test]
    fn paths_and_methods() {
        with_server(|server| {
            let rows = [
                ("GET", "/healthz", 200, "ok\n"),
                ("HEAD", "/healthz", 200, ""),
                ("GET", "/healthz?a=b", 200, "ok\n"),
                ("GET", "/readyz", 503, "starting\n"),
                ("POST", "/metrics", 405, "only GET and HEAD\n"),
                ("DELETE", "/readyz", 405, "only GET and HEAD\n"),
                ("GET", "/", 404, "try /metrics, /healthz or /readyz\n"),
                ("POST", "/none", 404, "try /metrics, /healthz or /readyz\n"),
                (
                    "GET",
                    "/metrics/",
                    404,
                    "try /metrics, /healthz or /readyz\n",
                ),
            ];
            for (method, path, status, body) in rows {
                let (got, head, text) = server.ask(method, path);
                assert_eq!((got, text.as_str()), (status, body), "{method} {path}");
                assert_eq!(head.contains("allow: get, head"), status == 405);
                assert!(head.contains("connection: close"));
            }
            let (_, head, _) = server.ask("HEAD", "/healthz");
            assert!(head.contains("content-length: 3"), "{head}");
        });
    }

    #[test]
    fn readiness_follows_the_server() {
        with_server(|server| {
            server.readiness.ready();
            assert_eq!(server.ask("GET", "/readyz").0, 200);
            server.readiness.draining();
            let (status, _, body) = server.ask("GET", "/readyz");
            assert_eq!((status, body.as_str()), (503, "draining\n"));
            // A server that drains is still in good health.
            assert_eq!(server.ask("GET", "/healthz").0, 200);
        });
    }

    #[test]
    fn metrics_read_back() {
        with_server(|server| {
            let shard = server.metrics.add_shard();
            shard.message_accepted(2048, 1);
            let (status, head, body) = server.ask("GET", "/metrics");
            assert_eq!(status, 200);
            assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"));
            assert_eq!(parse(&body)["ringpost_message_bytes_total"], 2048.0);
        });
    }

    #[test]
    fn silent_peers_hold_up_nobody_for_long() {
        with_server(|server| {
            let _silent: Vec<_> = (0..CONNECTIONS_MAX).map(|_| server.connect()).collect();
            // The limit is reached: this one waits until the silent ones have timed out.
            let begun = Instant::now();
            assert_eq!(server.ask("GET", "/healthz").0, 200);
            let waited = begun.elapsed();
            assert!(
                waited > HEADER_READ_MAX / 2 && waited < HEADER_READ_MAX * 2,
                "{waited:?}"
            );
        });
    }

    #[test]
    fn what_is_no_request_is_refused() {
        with_server(|server| {
            let mut stream = server.connect();
            stream.write_all(b"EHLO x\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        });
    }

    #[test]
    fn an_endless_header_is_cut_off() {
        with_server(|server| {
            let mut stream = server.connect();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").unwrap();
            // More than the buffers of both ends hold.
            let cut = (0..16 * 1024).any(|_| stream.write_all(&[b'x'; 4096]).is_err());
            assert!(cut);
        });
    }
}
