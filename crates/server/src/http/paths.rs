//! Paths as Go's `http.ServeMux` sees them: those that are not clean are sent to the clean one.

use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode, Uri};

use super::Body;

/// Where the gateway is.
pub(crate) const GATEWAY: &str = "/v3/";

/// The answer to a path that has a better form.
pub(super) fn redirect<B>(request: &Request<B>, has_gateway: bool) -> Option<Response<Body>> {
    let path = request.uri().path();
    let mut better = clean(path);
    if has_gateway && better == GATEWAY.trim_end_matches('/') {
        better.push('/');
    }
    if better == path {
        return None;
    }
    if let Some(query) = request.uri().query() {
        better = format!("{better}?{query}");
    }
    let location = HeaderValue::try_from(&better).ok()?;
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    if [Method::GET, Method::HEAD].contains(request.method()) {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
    }
    if request.method() == Method::GET {
        let shown = escape(&better);
        let body = format!("<a href=\"{shown}\">Moved Permanently</a>.\n\n");
        *response.body_mut() = Body::from(body);
    }
    Some(response)
}

/// Whether a path is in its best form.
pub(crate) fn is_clean(path: &str) -> bool {
    clean(path) == path
}

/// A path without `//`, `.` and `..`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with('/') && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Takes the path for what it says: without escapes, and the gateway's old name as its present one.
pub(crate) fn rewrite<B>(request: &mut Request<B>) {
    let path = request.uri().path();
    let mut better = unescaped(path).unwrap_or_else(|| path.to_owned());
    if let Some(rest) = better.strip_prefix("/v3beta/") {
        better = format!("{GATEWAY}{rest}");
    }
    if better == path {
        return;
    }
    if let Some(query) = request.uri().query() {
        better = format!("{better}?{query}");
    }
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = better.try_into().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// The path without escapes, if it then still is one. No path of ours has a character that needs one.
fn unescaped(path: &str) -> Option<String> {
    let mut parts = path.split('%');
    let mut unescaped = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        let byte = u8::from_str_radix(code, 16).ok()?;
        let is_plain = byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
        unescaped.push(is_plain.then_some(char::from(byte))?);
        unescaped.push_str(rest);
    }
    Some(unescaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, cleaned) in [
            ("/health", "/health"),
            ("//health", "/health"),
            ("/v3/kv//range", "/v3/kv/range"),
            ("/v3/../health/.", "/health"),
            ("/a/b/..", "/a"),
            ("/a/", "/a/"),
            ("/..", "/"),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn paths_are_taken_for_what_they_say() {
        for (path, rewritten) in [
            ("/v3beta/kv/put?x=1", "/v3/kv/put?x=1"),
            ("/v3beta", "/v3beta"),
            ("/v3%62eta/%6bv/put", "/v3/kv/put"),
            ("/he%61lth?a=%20", "/health?a=%20"),
            ("/a%3fb", "/a%3fb"),
            ("/a%zz", "/a%zz"),
            ("/a%4", "/a%4"),
        ] {
            let mut request = Request::builder().uri(path).body(()).unwrap();
            rewrite(&mut request);
            assert_eq!(request.uri(), rewritten);
        }
    }
}
