//! What handlers take from a request; whatever cannot be taken is a problem.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use shared::access::{self, Scope, Service, Unauthenticated};
use shared::customers::Identity;

use crate::ApiState;
use crate::problem::Problem;

/// The customer whose token the request carries.
pub(crate) struct Customer(pub Identity);

impl FromRequestParts<ApiState> for Customer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        Ok(Self(state.keys.verify(bearer(parts)?)?))
    }
}

/// The text of the one bearer token that a request carries.
fn bearer(parts: &Parts) -> Result<&str, Unauthenticated> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Unauthenticated("no single Authorization header"));
    };
    let text = value.to_str().map_err(|_| Unauthenticated("not ASCII"))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        Some(_) | None => Err(Unauthenticated("not a bearer token")),
    }
}

/// An operator's service, by a key with scope `admin`.
pub(crate) struct Admin(pub Service);

impl FromRequestParts<ApiState> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let text = bearer(parts)?;
        if !access::looks_like_key(text) {
            // A customer is known, but has no business here.
            state.keys.verify(text)?;
            return Err(Problem::forbidden());
        }
        let service = access::verify_key(&state.app, text).await?;
        if service.may(Scope::Admin) { Ok(Self(service)) } else { Err(Problem::forbidden()) }
    }
}

/// A JSON body.
pub(crate) struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Problem> {
        Ok(Self(axum::Json::from_request(request, state).await?.0))
    }
}

/// Values from the path.
pub(crate) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<ApiState> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        Ok(Self(axum::extract::Path::from_request_parts(parts, state).await?.0))
    }
}

/// Values from the query string.
pub(crate) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<ApiState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        Ok(Self(axum::extract::Query::from_request_parts(parts, state).await?.0))
    }
}
