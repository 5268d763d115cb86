//! What the shop shows.

use std::fmt::Write;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, put};
use hitbox_backend::metrics::PrometheusExport;
use serde::Deserialize;

use crate::database::{Item, PAGE};
use crate::shop::{Failure, LISTS, Shop, tag_of};

/// Browsers do not hear of a purge, and keep a page for less. Other shops may have made one of an old value just before it.
const BROWSERS: &str = "max-age=10, s-maxage=30";

/// All of the shop. Only pages are within the layer: changes, metrics and the status page are always asked for.
pub(crate) fn router(shop: &Shop, metrics: PrometheusExport) -> Router {
    let pages = Router::new()
        .route("/", get(list))
        .route("/items/{id}", get(item))
        .layer(shop.pages.clone())
        .with_state(shop.clone());
    Router::new()
        .route("/items/{id}/price", put(set_price))
        .with_state(shop.clone())
        .route("/metrics", get(async move || metrics.render()))
        // Shows keys, as `/metrics` shows numbers: a shop that the world can reach puts both elsewhere.
        .nest_service("/cache", shop.pages.status_page())
        .merge(pages)
}

/// What goes wrong is for the log; a visitor hears that something did.
struct Broken(Failure);

impl<E: Into<Failure>> From<E> for Broken {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Broken {
    fn into_response(self) -> Response {
        eprintln!("error: {}", self.0);
        (StatusCode::INTERNAL_SERVER_ERROR, "something went wrong\n").into_response()
    }
}

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    page: u32,
}

async fn list(State(shop): State<Shop>, Query(which): Query<Which>) -> Result<Response, Broken> {
    let items = shop.list(which.page).await?;
    let mut body = String::from("<h1>Shop</h1><ul>");
    for item in &items {
        write!(body, "<li><a href=\"/items/{}\">{}</a> {}</li>", item.id, escaped(&item.name), price(item))?;
    }
    body.push_str("</ul>");
    if items.len() == PAGE as usize {
        write!(body, "<a href=\"/?page={}\">more</a>", which.page + 1)?;
    }
    Ok(page(LISTS.to_owned(), body))
}

async fn item(State(shop): State<Shop>, Path(id): Path<u32>) -> Result<Response, Broken> {
    let Some(item) = shop.item(id).await? else {
        return Ok((StatusCode::NOT_FOUND, "there is no such item\n").into_response());
    };
    let body = format!("<h1>{}</h1><p>{}</p><a href=\"/\">all</a>", escaped(&item.name), price(&item));
    Ok(page(tag_of(id), body))
}

async fn set_price(State(shop): State<Shop>, Path(id): Path<u32>, cents: String) -> Result<Response, Broken> {
    let Ok(cents) = cents.trim().parse() else {
        return Ok((StatusCode::BAD_REQUEST, "a price is a number of cents\n").into_response());
    };
    if shop.set_price(id, cents).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Ok((StatusCode::NOT_FOUND, "there is no such item\n").into_response())
    }
}

/// A page that is removed from the cache by its tag.
fn page(tag: String, body: String) -> Response {
    let surrogate_key = header::HeaderName::from_static("surrogate-key");
    let whole = format!("<!doctype html><meta charset=\"utf-8\"><title>Shop</title>{body}\n");
    ([(header::CACHE_CONTROL, BROWSERS.to_owned()), (surrogate_key, tag)], Html(whole)).into_response()
}

fn price(item: &Item) -> String {
    format!("{}.{:02} €", item.cents / 100, item.cents % 100)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
