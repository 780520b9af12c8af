"""A stub of an exchange, or clients that sign as ccxt does and tell what they asked: a JSON line a call."""

import base64
import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Nobody's: random-looking, and some must be base64.
KEY = "madeupkeyQ7w9X2c4V6b8N1m3"
SECRET = base64.b64encode(b"a made-up secret, not anybody's").decode()
PASSWORD = "madeuppassZ5x7C9v1"

OK = 200


class Stub(BaseHTTPRequestHandler):
    """Answers what the client wants to be told."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        told = json.loads(base64.b64decode(self.headers["X-Stub"]))
        body = json.dumps(told["body"]).encode()
        self.send_response(told["status"])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_):
        pass


# Exchange, profile, and its calls: method of ccxt, parameters, operation, symbol, and then status,
# body and outcome of each answer.
def calls():
    return [
        ("binance", "binance", [
            ("privateGetAccount", {}, "read", None, [
                (OK, {"balances": []}, "ok"),
                (400, {"code": -1021, "msg": "Timestamp"}, "skew"),
                (400, {"code": -1022, "msg": "Signature"}, "bad_signature"),
                (401, {"code": -2015, "msg": "Invalid API-key, IP, or permissions"}, "bad_key"),
                (401, {"code": -2014, "msg": "API-key format invalid."}, "bad_key"),
                (429, {"code": -1003, "msg": "Too many"}, "throttled"),
                (400, {"code": -1015, "msg": "Too many new orders"}, "throttled"),
                (418, {"code": -1003, "msg": "banned"}, "banned")]),
            ("privatePostOrder", {"symbol": "BTCUSDT", "side": "BUY", "quantity": 1}, "trade", "BTCUSDT", [(OK, {"orderId": 1}, "ok")]),
            ("privateDeleteOrder", {"symbol": "BTCUSDT", "orderId": 1}, "cancel", "BTCUSDT", [(OK, {}, "ok")]),
            ("sapiPostCapitalWithdrawApply", {"coin": "BTC", "amount": 1}, "withdraw", None, [
                (400, {"code": -4035, "msg": "whitelist"}, "address_not_allowed")]),
        ]),
        ("okx", "okx", [
            ("privateGetAccountBalance", {}, "read", None, [
                (OK, {"code": "0", "data": []}, "ok"),
                (401, {"code": "50111", "msg": "key"}, "bad_key"),
                (401, {"code": "50113", "msg": "sign"}, "bad_signature"),
                (401, {"code": "50105", "msg": "passphrase"}, "bad_signature"),
                (401, {"code": "50112", "msg": "timestamp"}, "skew"),
                (OK, {"code": "50102", "msg": "time"}, "skew"),
                (401, {"code": "50110", "msg": "ip"}, "ip_denied"),
                (429, {"code": "50011", "msg": "many"}, "throttled")]),
            ("privatePostTradeOrder", {"instId": "BTC-USDT", "sz": "1", "side": "buy"}, "trade", "BTC-USDT", [(OK, {"code": "0", "data": []}, "ok")]),
            ("privatePostAssetWithdrawal", {"ccy": "BTC", "amt": "1"}, "withdraw", None, [(OK, {"code": "60023", "msg": "x"}, "address_not_allowed")]),
        ]),
        ("bybit", "bybit", [
            ("privateGetV5PositionList", {"symbol": "BTCUSDT"}, "read", "BTCUSDT", [
                (OK, {"retCode": 0, "result": {}}, "ok"),
                (OK, {"retCode": 10002, "retMsg": "x"}, "skew"),
                (OK, {"retCode": 10003, "retMsg": "x"}, "bad_key"),
                (OK, {"retCode": 10004, "retMsg": "x"}, "bad_signature"),
                (OK, {"retCode": 10006, "retMsg": "x"}, "throttled"),
                (OK, {"retCode": 10010, "retMsg": "x"}, "ip_denied"),
                (OK, {"retCode": 33004, "retMsg": "x"}, "bad_key"),
                (403, {"x": 1}, "ip_denied")]),
            ("privatePostV5OrderCreate", {"symbol": "BTCUSDT", "qty": "1"}, "trade", "BTCUSDT", [(OK, {"retCode": 0}, "ok")]),
            ("privatePostV5AssetWithdrawCreate", {"coin": "BTC", "amount": "1"}, "withdraw", None, [(OK, {"retCode": 10005, "retMsg": "x"}, "permission_denied")]),
        ]),
        ("coinbase", "coinbase-advanced", [
            ("v3PrivateGetBrokerageAccounts", {}, "read", None, [
                (OK, {"accounts": []}, "ok"),
                (401, {"errors": [{"id": "revoked_token"}]}, "bad_key"),
                (401, {"errors": [{"id": "invalid_token"}]}, "bad_key"),
                (429, {"errors": [{"id": "rate_limit_exceeded"}]}, "throttled")]),
            ("v3PrivatePostBrokerageOrders", {"client_order_id": "a", "product_id": "BTC-USD"}, "trade", "BTC-USD", [(OK, {"success": True}, "ok")]),
            ("v2PrivatePostAccountsAccountIdTransactions", {"account_id": "a", "type": "send", "amount": "1"}, "withdraw", None, [
                (201, {"data": {}}, "ok"),
                (402, {"errors": [{"id": "two_factor_required"}]}, "mfa_required")]),
        ]),
        ("coinbaseexchange", "coinbase-exchange", [
            ("privateGetAccounts", {}, "read", None, [
                (OK, [], "ok"),
                (401, {"message": "Invalid API Key"}, "bad_key"),
                (401, {"message": "invalid signature"}, "bad_signature"),
                (429, {"message": "Private rate limit exceeded"}, "throttled")]),
            ("privatePostOrders", {"product_id": "BTC-USD", "size": "1"}, "trade", "BTC-USD", [(OK, {"id": "a"}, "ok")]),
            ("privatePostWithdrawalsCrypto", {"amount": "1", "currency": "BTC"}, "withdraw", None, [(OK, {"id": "a"}, "ok")]),
        ]),
        ("kraken", "kraken", [
            ("privatePostBalance", {}, "read", None, [
                (OK, {"error": [], "result": {}}, "ok"),
                (OK, {"error": ["EAPI:Invalid key"]}, "bad_key"),
                (OK, {"error": ["EAPI:Invalid nonce"]}, "replayed_nonce"),
                (OK, {"error": ["EAPI:Invalid signature"]}, "bad_signature"),
                (OK, {"error": ["EGeneral:Permission denied"]}, "permission_denied"),
                (OK, {"error": ["EGeneral:Temporary lockout"]}, "locked")]),
            ("privatePostAddOrder", {"pair": "XBTUSD", "volume": "1"}, "trade", "XBTUSD", [(OK, {"error": [], "result": {}}, "ok")]),
            ("privatePostWithdraw", {"asset": "XBT", "amount": "1"}, "withdraw", None, [(OK, {"error": ["EAPI:Rate limit exceeded"]}, "throttled")]),
        ]),
        ("krakenfutures", "kraken-futures", [
            ("privateGetAccounts", {}, "read", None, [
                (OK, {"result": "success"}, "ok"),
                (OK, {"result": "error", "error": "nonceBelowThreshold"}, "replayed_nonce"),
                (OK, {"result": "error", "error": "nonceDuplicate"}, "replayed_nonce"),
                (OK, {"result": "error", "error": "apiLimitExceeded"}, "throttled")]),
            ("privatePostSendorder", {"symbol": "PI_XBTUSD", "size": 1}, "trade", "PI_XBTUSD", [(OK, {"result": "success"}, "ok")]),
            ("privatePostWithdrawal", {"currency": "xbt", "amount": 1}, "withdraw", None, [(OK, {"result": "success"}, "ok")]),
        ]),
        ("deribit", "deribit", [
            ("privateGetGetAccountSummary", {"currency": "BTC"}, "read", None, [
                (OK, {"jsonrpc": "2.0", "result": {}}, "ok"),
                (400, {"error": {"code": 13004, "message": "x"}}, "bad_key"),
                (400, {"error": {"code": 11042, "message": "x"}}, "permission_denied"),
                (400, {"error": {"code": 12000, "message": "x"}}, "mfa_required"),
                (400, {"error": {"code": 10028, "message": "x"}}, "throttled")]),
            ("privateGetBuy", {"instrument_name": "BTC-PERPETUAL", "amount": 1}, "trade", "BTC-PERPETUAL", [(OK, {"result": {}}, "ok")]),
            ("privateGetWithdraw", {"currency": "BTC", "amount": 1}, "withdraw", None, [(400, {"error": {"code": 13003, "message": "x"}}, "mfa_required")]),
        ]),
        ("bitfinex", "bitfinex", [
            ("privatePostAuthRWallets", {}, "read", None, [
                (OK, [], "ok"),
                (500, ["error", 10100, "apikey: invalid"], "bad_key"),
                (500, ["error", 10114, "nonce: small"], "replayed_nonce"),
                (500, ["error", 10001, "permission"], "permission_denied"),
                (429, ["error", 11010, "ratelimit: error"], "throttled")]),
            ("privatePostAuthWOrderSubmit", {"symbol": "tBTCUSD", "amount": "1"}, "trade", "tBTCUSD", [(OK, [1], "ok")]),
            ("privatePostAuthWWithdraw", {"wallet": "exchange", "amount": "1"}, "withdraw", None, [(OK, [1], "ok")]),
        ]),
        ("kucoin", "kucoin", [
            ("privateGetAccounts", {}, "read", None, [
                (OK, {"code": "200000", "data": []}, "ok"),
                (OK, {"code": "400001", "msg": "x"}, "bad_key"),
                (OK, {"code": "400002", "msg": "x"}, "skew"),
                (OK, {"code": "400003", "msg": "x"}, "bad_key"),
                (OK, {"code": "400004", "msg": "x"}, "bad_key"),
                (OK, {"code": "400007", "msg": "x"}, "permission_denied"),
                (OK, {"code": "400005", "msg": "x"}, "bad_signature"),
                (OK, {"code": "400006", "msg": "x"}, "ip_denied"),
                (429, {"code": "429000", "msg": "x"}, "throttled")]),
            ("privatePostOrders", {"symbol": "BTC-USDT", "clientOid": "a"}, "trade", "BTC-USDT", [(OK, {"code": "200000"}, "ok")]),
            ("privatePostWithdrawals", {"currency": "BTC", "amount": 1}, "withdraw", None, [(OK, {"code": "411100", "msg": "x"}, "locked")]),
        ]),
        ("gate", "gate", [
            ("privateSpotGetAccounts", {}, "read", None, [
                (OK, [], "ok"),
                (401, {"label": "INVALID_KEY"}, "bad_key"),
                (401, {"label": "INVALID_SIGNATURE"}, "bad_signature"),
                (403, {"label": "REQUEST_EXPIRED"}, "skew"),
                (403, {"label": "IP_FORBIDDEN"}, "ip_denied"),
                (429, {"label": "TOO_MANY_REQUESTS"}, "throttled")]),
            ("privateSpotPostOrders", {"currency_pair": "BTC_USDT", "amount": "1"}, "trade", "BTC_USDT", [(OK, {"id": "1"}, "ok")]),
            ("privateWithdrawalsPostWithdrawals", {"currency": "BTC", "amount": "1"}, "withdraw", None, [(403, {"label": "READ_ONLY"}, "permission_denied")]),
        ]),
        ("bitmex", "bitmex", [
            ("privateGetUserMargin", {}, "read", None, [
                (OK, {"account": 1}, "ok"),
                (401, {"error": {"message": "Invalid API Key.", "name": "HTTPError"}}, "bad_key"),
                (403, {"error": {"message": "This key is disabled.", "name": "HTTPError"}}, "bad_key"),
                (401, {"error": {"message": "Signature not valid.", "name": "HTTPError"}}, "bad_signature"),
                (401, {"error": {"message": "This request has expired", "name": "HTTPError"}}, "skew"),
                (429, {"error": {"message": "Rate limit exceeded, retry in 1 seconds.", "name": "RateLimitError"}}, "throttled")]),
            ("privatePostOrder", {"symbol": "XBTUSD", "orderQty": 1}, "trade", "XBTUSD", [(OK, {"orderID": "a"}, "ok")]),
            ("privateDeleteOrder", {"orderID": "a"}, "cancel", None, [(OK, [], "ok")]),
            ("privatePostUserRequestWithdrawal", {"currency": "XBt", "amount": 1}, "withdraw", None, [
                (OK, {"transactID": "a"}, "ok"),
                (403, {"error": {"message": "2FA token required", "name": "HTTPError"}}, "mfa_required")]),
        ]),
    ]


def redirect(urls, base):
    """The same paths on another server."""
    if isinstance(urls, dict):
        return {name: redirect(url, base) for name, url in urls.items()}
    return re.sub(r"^https?://[^/]+", base, urls) if isinstance(urls, str) else urls


def secret_of(name):
    if name != "coinbase":
        return SECRET
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def connect(host, port):
    import ccxt

    for name, profile, each in calls():
        exchange = getattr(ccxt, name)({
            "apiKey": KEY + name,
            "secret": secret_of(name),
            "password": PASSWORD,
            "enableRateLimit": False,
        })
        exchange.urls["api"] = redirect(exchange.urls["api"], f"http://{host}:{port}")
        for method, params, op, symbol, answers in each:
            for status, body, outcome in answers:
                told = json.dumps({"status": status, "body": body}).encode()
                exchange.headers = {"X-Stub": base64.b64encode(told).decode()}
                try:
                    getattr(exchange, method)(dict(params))
                except ccxt.BaseError:
                    pass
                line = {"exchange": name, "method": method, "profile": profile, "op": op}
                print(json.dumps({**line, "symbol": symbol, "outcome": outcome}), flush=True)


def serve(host):
    server = ThreadingHTTPServer((host, 0), Stub)
    print(f"listening {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    elif sys.argv[1] == "secrets":
        print("\n".join([KEY, SECRET, PASSWORD]))
    else:
        connect(sys.argv[2], sys.argv[3])
