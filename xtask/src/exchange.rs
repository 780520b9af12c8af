//! A small sample exchange: a JSON API in Binance's style, with keys, permissions and a rate limit.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::process::Proc;

/// Calls a second that one key may make before it gets 429.
const CALLS_PER_SECOND_MAX: u32 = 200;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// See balances and orders.
    Read,
    /// Place and cancel orders.
    Trade,
    /// Send funds out.
    Withdraw,
}

/// One line of the key file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// The key itself.
    pub key: String,
    /// What it may do.
    pub permissions: Vec<Permission>,
}

/// Serves until the process is ended.
pub fn serve(listen: SocketAddr, keys: &Path) -> Result<()> {
    let text = std::fs::read(keys).with_context(|| format!("reading {}", keys.display()))?;
    let entries: Vec<KeyEntry> = serde_json::from_slice(&text)
        .with_context(|| format!("{}: not a list of keys", keys.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("listening on {listen}"))?;
        println!("exchange: listening on {}", listener.local_addr()?);
        axum::serve(listener, router(Exchange::new(entries))).await.context("serving")
    })
}

/// Starts it as a process of its own from this binary.
pub fn spawn(listen: SocketAddr, keys: &Path, dir: &Path) -> Result<Proc> {
    let mut command = Command::new(own_binary()?);
    command.args(["exchange", "--listen", &listen.to_string(), "--keys"]).arg(keys);
    let mut child = Proc::spawn("exchange", &command, &dir.join("exchange.log"))?;
    child.wait_for_listener(listen, Duration::from_secs(30))?;
    Ok(child)
}

/// The xtask binary: this process, or the one beside a test binary.
fn own_binary() -> Result<PathBuf> {
    let current = std::env::current_exe().context("finding our own binary")?;
    if current.file_name().is_some_and(|name| name == "xtask") {
        return Ok(current);
    }
    let beside = current.ancestors().map(|dir| dir.join("xtask")).find(|file| file.is_file());
    beside.context("no xtask binary beside this one (mend: cargo build -p xtask)")
}

struct Exchange {
    keys: HashMap<String, Account>,
    orders: AtomicU64,
}

struct Account {
    permissions: Vec<Permission>,
    window: Mutex<(Instant, u32)>,
}

impl Exchange {
    fn new(entries: Vec<KeyEntry>) -> Arc<Exchange> {
        let account = |entry: KeyEntry| {
            let window = Mutex::new((Instant::now(), 0));
            (entry.key, Account { permissions: entry.permissions, window })
        };
        let keys = entries.into_iter().map(account).collect();
        Arc::new(Exchange { keys, orders: AtomicU64::new(1) })
    }

    /// Whether the key in `headers` may do this now.
    fn admit(&self, headers: &HeaderMap, needed: Permission) -> Result<(), Refusal> {
        let key = headers.get("x-mbx-apikey").and_then(|value| value.to_str().ok());
        let account = key.and_then(|key| self.keys.get(key)).ok_or(Refusal::UnknownKey)?;
        if !account.within_limit(Instant::now()) {
            return Err(Refusal::TooFast);
        }
        if !account.permissions.contains(&needed) {
            return Err(Refusal::NotPermitted);
        }
        Ok(())
    }
}

impl Account {
    fn within_limit(&self, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(window.0) > Duration::from_secs(1) {
            *window = (now, 0);
        }
        window.1 += 1;
        window.1 <= CALLS_PER_SECOND_MAX
    }
}

/// Why a call was refused, with the code that Binance gives.
#[derive(Debug)]
enum Refusal {
    UnknownKey,
    NotPermitted,
    TooFast,
    NoSuchPath,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Refusal::UnknownKey => (StatusCode::UNAUTHORIZED, -2014, "API-key format invalid."),
            Refusal::NotPermitted => {
                (StatusCode::FORBIDDEN, -2015, "Invalid API-key, IP, or permissions for action.")
            }
            Refusal::TooFast => (StatusCode::TOO_MANY_REQUESTS, -1003, "Too many requests."),
            Refusal::NoSuchPath => (StatusCode::NOT_FOUND, -1100, "No such path."),
        };
        (status, Json(json!({ "code": code, "msg": message }))).into_response()
    }
}

type Shared = State<Arc<Exchange>>;
type Answer = Result<Json<Value>, Refusal>;

fn router(exchange: Arc<Exchange>) -> Router {
    Router::new()
        .route("/api/v3/ping", get(async || Json(json!({}))))
        .route("/api/v3/ticker/price", get(price))
        .route("/api/v3/account", get(account))
        .route("/api/v3/openOrders", get(account))
        .route("/api/v3/order", post(order).delete(order))
        .route("/sapi/v1/capital/withdraw/apply", post(withdraw))
        .fallback(async || Refusal::NoSuchPath)
        .with_state(exchange)
}

#[derive(Deserialize)]
struct PriceQuery {
    symbol: Option<String>,
}

async fn price(Query(query): Query<PriceQuery>) -> Json<Value> {
    Json(json!({ "symbol": query.symbol.as_deref().unwrap_or("BTCUSDT"), "price": "97250.10" }))
}

async fn account(State(exchange): Shared, headers: HeaderMap) -> Answer {
    exchange.admit(&headers, Permission::Read)?;
    Ok(Json(json!({
        "canTrade": true,
        "balances": [
            { "asset": "BTC", "free": "0.52110000", "locked": "0.00000000" },
            { "asset": "USDT", "free": "18220.75000000", "locked": "1200.00000000" },
        ],
    })))
}

async fn order(State(exchange): Shared, headers: HeaderMap, request: Request) -> Answer {
    exchange.admit(&headers, Permission::Trade)?;
    let status = if request.method() == Method::DELETE { "CANCELED" } else { "NEW" };
    let id = exchange.orders.fetch_add(1, Ordering::Relaxed);
    Ok(Json(json!({ "symbol": "BTCUSDT", "orderId": id, "status": status })))
}

async fn withdraw(State(exchange): Shared, headers: HeaderMap) -> Answer {
    exchange.admit(&headers, Permission::Withdraw)?;
    let id = exchange.orders.fetch_add(1, Ordering::Relaxed);
    Ok(Json(json!({ "id": format!("w{id:08}") })))
}
