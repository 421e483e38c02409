//! Keys on their way to a service, and what comes back.

use super::{Folder, vault};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use zo_providers::{HttpRequest, Injector, KeyName, Leaks, Scope, Secret, Timeouts, VaultHttp};
use zo_traits::{Cx, ErrorKind};

const KEY: &str = "ghp_canary/0123+456=";

/// A server that keeps what it was sent and answers with `answer(request)`.
async fn serve(
    answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (answer, log) = (Arc::new(answer), seen.clone());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (answer, log) = (answer.clone(), log.clone());
            tokio::spawn(async move {
                let (mut text, mut buffer) = (String::new(), [0; 4096]);
                loop {
                    let n = socket.read(&mut buffer).await.unwrap_or(0);
                    text += &String::from_utf8_lossy(&buffer[..n]);
                    let Some((head, body)) = text.split_once("\r\n\r\n") else {
                        assert!(n > 0, "cut request");
                        continue;
                    };
                    let length = head
                        .lines()
                        .find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if n == 0 || body.len() >= length.unwrap_or(0usize) {
                        break;
                    }
                }
                log.lock().unwrap().push(text.clone());
                let _ = socket.write_all(&answer(&text)).await;
                let _ = socket.shutdown().await;
            });
        }
    });
    (host, seen)
}

fn ok(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n{head}\r\n{body}", body.len())
        .into_bytes()
}

struct Set {
    http: VaultHttp,
    injector: Injector,
    _folder: Folder,
}

fn set(name: &str, scope: &Scope) -> Set {
    let folder = Folder::new(name);
    let vault = vault(&folder);
    for (key, value) in [
        (KeyName::new("alice", "github"), KEY),
        (KeyName::new("alice", "github").named("work"), "ghp_work_0123456"),
        (KeyName::new("bob", "slack"), "xoxb-bob-0123456"),
        (KeyName::new("alice", "pin"), "1234567"),
    ] {
        vault.put(&key, &Secret::new(value), scope).unwrap();
    }
    vault.put(&KeyName::new("alice", "openai"), &Secret::new("sk-0123456789"), &Scope::default()).unwrap();
    let injector = Injector::new(&vault, "alice", &Leaks::default());
    Set { http: VaultHttp::new(injector.clone()), injector, _folder: folder }
}

#[tokio::test]
async fn the_server_gets_the_key_and_the_caller_never_does() {
    let (host, seen) = serve(|request| {
        let base64 = "Z2hwX2NhbmFyeS8wMTIzKzQ1Nj0=";
        let hex: String = KEY.bytes().map(|b| format!("{b:02x}")).collect();
        let percent = KEY.replace('/', "%2F").replace('+', "%2b");
        ok(&format!("x-echo: {KEY}\r\n"), &format!("{request} {base64} {hex} {percent}"))
    })
    .await;
    let set = set("echo", &Scope::hosts([host.clone()]));
    let request = HttpRequest::new("POST", format!("http://{host}/x?y=1"))
        .header("authorization", "Bearer {{secret:github}}")
        .header("x-two", "{{secret:github/work}},{{ secret:github }}{{secret: github }}")
        .body("body with {{secret:github}}");
    let answer = set.http.send(&Cx::default(), request).await.unwrap();
    let sent = seen.lock().unwrap().remove(0);
    assert!(sent.starts_with("POST /x?y=1 HTTP/1.1"), "{sent}");
    assert!(sent.contains(&format!("authorization: Bearer {KEY}\r\n")), "{sent}");
    assert!(sent.contains(&format!("x-two: ghp_work_0123456,{{{{ secret:github }}}}{KEY}\r\n")), "{sent}");
    assert!(sent.ends_with("body with {{secret:github}}"), "a body is not touched unless asked: {sent}");
    let text = answer.text();
    assert_eq!(answer.status, 200);
    assert!(!text.contains("canary") && !text.contains("ghp_work"), "{text}");
    assert_eq!(text.matches("[secret github]").count(), 5, "{text}");
    assert!(
        answer.headers.contains(&("x-echo".to_owned(), "[secret github]".to_owned())),
        "{:?}",
        answer.headers
    );
}

#[tokio::test]
async fn keys_go_nowhere_else() {
    let (host, seen) = serve(|_| ok("", "")).await;
    let set = set("bound", &Scope::hosts(["api.github.com", "127.0.0.1:1"]));
    let header = |value: &str| vec![("authorization".to_owned(), value.to_owned())];
    let kind = |host: &str, scheme: &str, value: &str| {
        set.injector.headers(host, scheme, header(value)).map(|_| ()).map_err(|e| {
            assert!(!e.to_string().contains("ghp_") && !e.model_text().contains("ghp_"), "{e}");
            e.kind()
        })
    };
    assert_eq!(kind("api.github.com", "https", "{{secret:github}}"), Ok(()));
    assert_eq!(kind("api.github.com", "https", "no secret"), Ok(()));
    assert_eq!(kind("evil.example", "https", "no secret"), Ok(()));
    assert_eq!(kind("127.0.0.1:1", "http", "{{secret:github}}"), Ok(()), "loopback may be plain");
    for (host, scheme, value, want) in [
        ("evil.example", "https", "{{secret:github}}", ErrorKind::Denied),
        ("api.github.com.evil.example", "https", "{{secret:github}}", ErrorKind::Denied),
        ("api.github.com", "http", "{{secret:github}}", ErrorKind::Denied),
        ("api.github.com:8443", "https", "{{secret:github}}", ErrorKind::Denied),
        ("api.github.com", "ftp", "{{secret:github}}", ErrorKind::Invalid),
        ("api.github.com@evil.example", "https", "{{secret:github}}", ErrorKind::Invalid),
        ("api.github.com", "https", "{{secret:slack}}", ErrorKind::NotFound),
        ("api.github.com", "https", "{{secret:}}", ErrorKind::NotFound),
        ("api.github.com", "https", "{{secret:github", ErrorKind::Invalid),
        ("api.github.com", "https", "{{secret:openai}}", ErrorKind::Denied),
        ("api.github.com", "https", "{{secret:pin}}", ErrorKind::Denied),
    ] {
        assert_eq!(kind(host, scheme, value), Err(want), "{host} {scheme} {value}");
    }
    let named = vec![("{{secret:github}}".to_owned(), "x".to_owned())];
    assert_eq!(
        set.injector.headers("api.github.com", "https", named).unwrap_err().kind(),
        ErrorKind::Invalid
    );

    let send = async |request: HttpRequest| set.http.send(&Cx::default(), request).await.unwrap_err();
    let get = |url: &str| HttpRequest::new("GET", url).header("a", "{{secret:github}}");
    let e = send(get(&format!("http://{host}/"))).await;
    assert!(e.kind() == ErrorKind::Denied && e.model_text().contains("github may not be sent to"), "{e}");
    assert_eq!(send(get("http://api.github.com/")).await.kind(), ErrorKind::Denied);
    assert_eq!(send(get("file:///etc/passwd")).await.kind(), ErrorKind::Invalid);
    assert_eq!(send(get("http://u:p@127.0.0.1:1/")).await.kind(), ErrorKind::Invalid);
    for reserved in ["Host", "content-length", "Transfer-Encoding", "connection", "accept-encoding"] {
        let e = send(HttpRequest::new("GET", format!("http://{host}/")).header(reserved, "x")).await;
        assert_eq!(e.kind(), ErrorKind::Invalid, "{reserved}: {e}");
    }
    let e = send(HttpRequest::new("GET", format!("http://{host}/")).header("a", "x\r\nhost: y")).await;
    assert_eq!(e.kind(), ErrorKind::Invalid);
    let e =
        send(HttpRequest::new("POST", format!("http://{host}/")).body("{{secret:github}}").fill_body()).await;
    assert_eq!(e.kind(), ErrorKind::Denied);
    assert!(seen.lock().unwrap().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn bodies_and_urls_only_where_it_was_said() {
    let (host, seen) = serve(|_| ok("", "fine")).await;
    let headers_only = set("places-no", &Scope::hosts([host.clone()]));
    let url = format!("http://{host}/?key={{{{secret:github}}}}");
    let e = headers_only.http.send(&Cx::default(), HttpRequest::new("GET", &url)).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Denied && e.message().contains("in headers, not in a body or URL"), "{e}");
    let body =
        HttpRequest::new("POST", format!("http://{host}/")).body(r#"{"k":"{{secret:github}}"}"#).fill_body();
    assert_eq!(
        headers_only.http.send(&Cx::default(), body.clone()).await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    assert!(seen.lock().unwrap().is_empty());

    let both = set("places", &Scope::hosts([host.clone()]).in_body().in_url());
    both.http.send(&Cx::default(), HttpRequest::new("GET", &url)).await.unwrap();
    both.http.send(&Cx::default(), body.header("content-type", "application/json")).await.unwrap();
    let sent = std::mem::take(&mut *seen.lock().unwrap());
    assert!(sent[0].starts_with("GET /?key=ghp_canary%2F0123%2B456%3D HTTP"), "{}", sent[0]);
    assert!(sent[1].ends_with(r#"{"k":"ghp_canary/0123+456="}"#), "{}", sent[1]);
    let injected =
        both.injector.body(&host, "http", "application/x-www-form-urlencoded", "k={{secret:github}}");
    assert_eq!(injected.unwrap().expose(), "k=ghp_canary%2F0123%2B456%3D");
    for url in [format!("http://{{{{secret:github}}}}.{host}/"), "https://{{secret:github}}/".into()] {
        assert!(both.injector.url(&url).is_err(), "{url}");
    }
    // A key with quotes stays one JSON string.
    let folder = Folder::new("quotes");
    let vault = vault(&folder);
    vault
        .put(&KeyName::new("a", "q"), &Secret::new("quo\"ted\\ke\ny"), &Scope::hosts(["a.b"]).in_body())
        .unwrap();
    let injector = Injector::new(&vault, "a", &Leaks::default());
    let json = injector.body("a.b", "https", "application/json", r#"{"k":"{{secret:q}}"}"#).unwrap();
    let value: serde_json::Value = serde_json::from_str(json.expose()).unwrap();
    assert_eq!(value["k"], "quo\"ted\\ke\ny");
}

#[tokio::test]
async fn redirects_floods_and_packed_answers_end_here() {
    let (host, seen) = serve(|request| match request.split(' ').nth(1) {
        Some("/moved") => {
            format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/?{KEY}\r\ncontent-length: 0\r\n\r\n")
                .into_bytes()
        }
        Some("/large") => ok("", &"x".repeat(100_001)),
        Some("/packed") => ok("content-encoding: gzip\r\n", "xxxx"),
        Some("/cut") => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec(),
        _ => b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops".to_vec(),
    })
    .await;
    let set = set("answers", &Scope::hosts([host.clone()]));
    let http = set.http.clone().with_max_body(100_000);
    let get = async |path: &str| {
        let request =
            HttpRequest::new("GET", format!("http://{host}{path}")).header("a", "{{secret:github}}");
        http.send(&Cx::default(), request).await
    };
    let moved = get("/moved").await.unwrap();
    assert_eq!(moved.status, 302);
    assert!(moved.headers.contains(&("location".into(), "http://127.0.0.1:1/?[secret github]".into())));
    assert_eq!(seen.lock().unwrap().len(), 1, "not followed");
    assert_eq!(get("/large").await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(get("/packed").await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(get("/cut").await.unwrap_err().kind(), ErrorKind::Corrupt);
    let failed = get("/else").await.unwrap();
    assert_eq!((failed.status, failed.text().as_ref()), (500, "oops"));
}

#[tokio::test]
async fn it_ends_when_the_caller_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let set = set("silent", &Scope::hosts([host.clone()]));
    let get = || HttpRequest::new("GET", format!("http://{host}/"));
    let cx = Cx::default();
    cx.cancel().cancel();
    assert_eq!(set.http.send(&cx, get()).await.unwrap_err().kind(), ErrorKind::Cancelled);
    let cx = Cx::default();
    let (http, child, request) = (set.http.clone(), cx.child(), get());
    let call = tokio::spawn(async move { http.send(&child, request).await });
    let (silent, _) = listener.accept().await.unwrap();
    cx.cancel().cancel();
    assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    drop(silent);
    let cx = Cx::default().with_timeout(Duration::from_millis(20));
    assert_eq!(set.http.send(&cx, get()).await.unwrap_err().kind(), ErrorKind::Timeout);
    let timeouts = Timeouts { first_byte: Duration::from_millis(20), ..Timeouts::default() };
    let e = set.http.clone().with_timeouts(timeouts).send(&Cx::default(), get()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Timeout && e.message().contains("no answer within"), "{e}");
    drop(listener);
    let e = set.http.send(&Cx::default(), get()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Unavailable && !e.message().contains("http://"), "{e}");
}

/// Sends a key to this machine; nothing when it is run as a test.
#[tokio::test]
async fn proxy_victim() {
    let Ok(host) = std::env::var("ZO_PROXY_VICTIM") else { return };
    let set = set("proxied", &Scope::hosts([host.clone()]));
    let request = HttpRequest::new("GET", format!("http://{host}/"))
        .header("authorization", "Bearer {{secret:github}}");
    // Whether anybody answers does not matter.
    let _ = set.http.send(&Cx::default(), request).await;
}

#[test]
fn a_key_for_this_machine_passes_no_proxy() {
    for spelling in ["localhost:9", "localhost.:9", "LOCALHOST.:9", "127.0.0.1:9", "127.0.0.1.:9", "[::1]:9"]
    {
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", proxy.local_addr().unwrap());
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "http::proxy_victim"])
            .envs([("http_proxy", &*address), ("HTTP_PROXY", &address), ("ALL_PROXY", &address)])
            .env("ZO_PROXY_VICTIM", spelling)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        proxy.set_nonblocking(true).unwrap();
        let asked = loop {
            match proxy.accept() {
                Ok(_) => break true,
                Err(_) if child.try_wait().unwrap().is_some() => break false,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        child.wait().unwrap();
        assert!(!asked, "the proxy was asked for {spelling}");
    }
}

#[test]
fn a_key_of_several_lines_stands_in_no_header() {
    let folder = Folder::new("lines");
    let vault = vault(&folder);
    let scope = Scope::hosts(["api.example.com"]).in_body();
    vault.put(&KeyName::new("alice", "pem"), &Secret::new("begin-key\r\nX-Admin: yes"), &scope).unwrap();
    let injector = Injector::new(&vault, "alice", &Leaks::default());
    let written = vec![("x-key".to_owned(), "{{secret:pem}}".to_owned())];
    let e = injector.headers("api.example.com", "https", written).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
    assert!(!e.to_string().contains("begin-key"), "{e}");
    assert!(injector.body("api.example.com", "https", "text/plain", "{{secret:pem}}").is_ok());
}
