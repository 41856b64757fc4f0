//! Answers whose body is made here, though tonic's generated service gives them: it knows only messages, which it
//! encodes one by one into a buffer of its own.

use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Response;
use tonic::body::Body;
use tower::util::MapResponse;

/// A generated service, some of whose answers have a body of their own.
pub(super) type WithOwnBodies<S> = MapResponse<S, fn(http::Response<Body>) -> http::Response<Body>>;

/// Stands in the extensions of an answer, which have to be such that they can be cloned and shared.
#[derive(Clone)]
struct OwnBody(Arc<Mutex<Option<Body>>>);

/// An answer that is complete only when it has gone through [`serve`]: then this is its body, instead of the message
/// or messages that tonic is given.
pub(super) fn answer<T>(given: T, body: Body) -> Response<T> {
    let mut answer = Response::new(given);
    let own = OwnBody(Arc::new(Mutex::new(Some(body))));
    answer.extensions_mut().insert(own);
    answer
}

/// Gives the answers of a service the bodies that they have beside them.
pub(super) fn serve<S>(service: S) -> WithOwnBodies<S> {
    MapResponse::new(service, put_in)
}

/// What [`serve`] does to an answer.
pub(super) fn put_in(mut answer: http::Response<Body>) -> http::Response<Body> {
    let own = answer.extensions_mut().remove::<OwnBody>();
    match own.and_then(|own| own.0.lock().take()) {
        None => answer,
        Some(body) => answer.map(|_given| body),
    }
}
