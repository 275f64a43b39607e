//! Who sees what we are: tokens and passwords go where they belong, and nowhere else.

use super::*;

/// A registry that wants a token, which another server gives to whoever has the password.
fn with_tokens(shelf: Arc<Shelf>, open: bool) -> (Server, Server) {
    let tokens = Server::start(move |asked| {
        let known = asked.header("authorization") == format!("Basic {}", crate::nix::hash::to_base64(b"user:password"));
        match known || open {
            // Characters that a token may have.
            true => Reply::new(200, format!(r#"{{"token":"tok~{}","expires_in":300}}"#, asked.path.contains("push"))),
            false => Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}"#),
        }
    });
    let realm = format!("http://{}/token", tokens.host);
    let registry = Server::start(move |asked| {
        let right = match asked.method.as_str() {
            "GET" | "HEAD" => ["Bearer tok~true", "Bearer tok~false"].contains(&asked.header("authorization")),
            _ => asked.header("authorization") == "Bearer tok~true",
        };
        match right {
            true => shelf.answer(asked),
            false => Reply::new(401, "").with("www-authenticate", format!(r#"Bearer realm="{realm}",service="s""#)),
        }
    });
    (registry, tokens)
}

#[test]
fn a_token_is_fetched_once_for_each_right_and_shown() {
    let (registry, tokens) = with_tokens(Arc::default(), false);
    let world = World::with(logins(&registry.host));
    let id = world.formation(b"hello", "linux/amd64");
    let address = format!("oci://{}/team/app:x", registry.host);
    world.push(&address, &[id]).unwrap();
    world.pull(&address).unwrap();
    let asked: Vec<String> = tokens.asked().into_iter().map(|asked| asked.path).collect();
    assert!(asked.iter().any(|path| path.contains("scope=repository%3ateam%2fapp%3apull%2cpush")), "{asked:?}");
    assert!(asked.iter().all(|path| path.contains("service=s") && path.contains("account=user")), "{asked:?}");
    // Pull and push of one session, pull of another; some of the threads of a push may ask at the same time.
    assert!(asked.len() <= 7, "{asked:?}");
    // The password is seen by whoever gives tokens alone.
    assert!(registry.asked().iter().all(|asked| !asked.header("authorization").starts_with("Basic")));
}

#[test]
fn without_a_login_one_may_be_nobody_and_else_is_told_to_log_in() {
    let (registry, _tokens) = with_tokens(Arc::default(), true);
    let world = World::new();
    let id = world.formation(b"hello", "linux/amd64");
    world.push(&format!("oci://{}/app:x", registry.host), &[id]).unwrap();
    let (closed, _tokens) = with_tokens(Arc::default(), false);
    let error = world.pull(&format!("oci://{}/app:x", closed.host)).unwrap_err();
    assert!(
        matches!(&error, crate::Error::Registry(Error::Denied { logged_in: false, reason, .. }) if reason == "who are you?"),
        "{error}"
    );
}

#[test]
fn a_password_is_shown_where_it_is_asked_for() {
    let shelf = Arc::new(Shelf::default());
    let answers = Arc::clone(&shelf);
    let server = Server::start(move |asked| match asked.header("authorization") {
        "Basic dXNlcjpwYXNzd29yZA==" => answers.answer(asked),
        _ => Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\""),
    });
    let world = World::with(logins(&server.host));
    let id = world.formation(b"hello", "linux/amd64");
    world.push(&format!("oci://{}/app:x", server.host), &[id]).unwrap();
    // Not before it is asked for.
    assert_eq!(server.asked()[0].header("authorization"), "");
    let nobody = World::new();
    let error = nobody.pull(&format!("oci://{}/app:x", server.host)).unwrap_err();
    assert!(matches!(error, crate::Error::Registry(Error::Denied { logged_in: false, .. })), "{error}");
}

#[test]
fn a_redirect_takes_nothing_along() {
    let shelf = Arc::new(Shelf::default());
    let there = Arc::clone(&shelf);
    let elsewhere = Server::start(move |asked| there.answer(asked));
    let (answers, target) = (Arc::clone(&shelf), elsewhere.host.clone());
    let server = Server::start(move |asked| {
        let blob = asked.path.contains("/blobs/sha256:");
        match (asked.header("authorization"), asked.method.as_str()) {
            ("", _) => Reply::new(401, "").with("www-authenticate", "Basic"),
            (_, "GET") if blob => Reply::new(307, "").with("location", format!("http://{target}{}", asked.path)),
            _ => answers.answer(asked),
        }
    });
    let world = World::with(logins(&server.host));
    let id = world.formation(b"hello", "linux/amd64");
    let address = format!("oci://{}/app:x", server.host);
    world.push(&address, &[id]).unwrap();
    let world = world.emptied();
    world.pull(&address).unwrap();
    let seen = elsewhere.asked();
    assert!(!seen.is_empty() && seen.iter().all(|asked| asked.header("authorization").is_empty()), "{seen:?}");
}

#[test]
fn an_upload_may_go_elsewhere_and_takes_nothing_along() {
    let shelf = Arc::new(Shelf::default());
    let there = Arc::clone(&shelf);
    let elsewhere = Server::start(move |asked| there.answer(asked));
    let (answers, target) = (Arc::clone(&shelf), elsewhere.host.clone());
    let server = Server::start(move |asked| match asked.header("authorization") {
        "" => Reply::new(401, "").with("www-authenticate", "Basic"),
        _ => {
            let mut reply = answers.answer(asked);
            for (name, value) in &mut reply.headers {
                if name == "location" {
                    *value = format!("http://{target}{value}");
                }
            }
            reply
        }
    });
    let world = World::with(logins(&server.host));
    let id = world.formation(b"hello", "linux/amd64");
    world.push(&format!("oci://{}/app:x", server.host), &[id]).unwrap();
    let seen = elsewhere.asked();
    assert!(!seen.is_empty() && seen.iter().all(|asked| asked.header("authorization").is_empty()), "{seen:?}");
}

#[test]
fn places_that_are_not_safe_are_not_followed() {
    // (what the registry answers, a word of what is said of it)
    for (reply, word) in [
        (Reply::new(307, "").with("location", "ftp://elsewhere.example/x"), "no address"),
        (Reply::new(307, "").with("location", "http://user:password@elsewhere.example/x"), "user name"),
        (Reply::new(302, "").with("location", "/v2/"), "redirects"),
        (Reply::new(401, "").with("www-authenticate", r#"Bearer realm="http://127.0.0.1:1/token""#), "cannot reach"),
        (Reply::new(401, "").with("www-authenticate", r#"Bearer realm="file:///etc/passwd""#), "no address"),
        (Reply::new(401, "").with("www-authenticate", r#"Bearer realm="https://u:p@tokens.invalid/""#), "not secure"),
    ] {
        let loops = reply.headers[0].1 == "/v2/";
        let server = Server::start(move |asked| match asked.path.as_str() {
            "/v2/" if !loops => Reply::new(200, "{}"),
            _ => reply.clone(),
        });
        let error = World::new().pull(&format!("oci://{}/app:x", server.host)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn other_hosts_are_not_spoken_to_in_plain_http() {
    // Nobody listens there: what matters is which scheme is tried.
    let world = World::new();
    let error = world.pull("oci://192.0.2.1:1/app:x").unwrap_err();
    assert!(matches!(error, crate::Error::Registry(Error::Unreachable { .. })), "{error}");
    let session = Session::new(&world.access, &"oci://registry.invalid/app".parse().unwrap());
    assert!(session.follow("https://registry.invalid/v2/", "http://registry.invalid/v2/x").is_err());
    assert!(session.follow("https://registry.invalid/v2/", "https://elsewhere.invalid/x").is_ok());
}
