"""A gRPC server (HTTP/2 on one port, gRPC-Web on another), or clients that tell what they called: a JSON
line a call. Messages are plain bytes: no schema is needed to count them."""

import json
import socketserver
import sys
from concurrent import futures
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import grpc
import sonora.client
from sonora.wsgi import grpcWSGI

SERVICE = "desk.v1.Orders"
REFUSALS = {
    b"denied": grpc.StatusCode.PERMISSION_DENIED,
    b"key": grpc.StatusCode.UNAUTHENTICATED,
    b"busy": grpc.StatusCode.RESOURCE_EXHAUSTED,
    b"broken": grpc.StatusCode.INTERNAL,
}


def place(request, context):
    if request in REFUSALS:
        context.abort(REFUSALS[request], "refused")
    return b"r" + request


def watch(request, _):
    for number in range(int(request)):
        yield b"e" * number


def batch(requests, _):
    return b"%d" % sum(len(request) for request in requests)


def talk(requests, _):
    for request in requests:
        yield request * 2


class Handlers(grpc.GenericRpcHandler):
    KNOWN = {
        "Place": grpc.unary_unary_rpc_method_handler(place),
        "Watch": grpc.unary_stream_rpc_method_handler(watch),
        "Batch": grpc.stream_unary_rpc_method_handler(batch),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
    }
    # The server of gRPC-Web wants them named.
    WEB = {
        name: handler._replace(
            request_deserializer=lambda message: bytes(message), response_serializer=lambda it: it
        )
        for name, handler in KNOWN.items()
    }

    def __init__(self, known):
        self.known = known

    def service(self, call):
        return self.known.get(call.method.rpartition("/")[2])


class ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def serve(host, port, web_port):
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handlers(Handlers.KNOWN),))
    server.add_insecure_port(f"{host}:{port}")
    server.start()
    web = grpcWSGI()
    web.add_generic_rpc_handlers((Handlers(Handlers.WEB),))
    front = make_server(host, int(web_port), web, ThreadingServer, Quiet)
    print("listening", flush=True)
    front.serve_forever()


def serve_sealed(host, port, certificate, key):
    """Over TLS, which its extension module brings without symbols."""
    pair = [(open(key, "rb").read(), open(certificate, "rb").read())]
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Handlers(Handlers.KNOWN),))
    server.add_secure_port(f"{host}:{port}", grpc.ssl_server_credentials(pair))
    server.start()
    print("listening", flush=True)
    server.wait_for_termination()


def stay_sealed(host, port, certificate, _):
    """One call, on a connection that stays open."""
    credentials = grpc.ssl_channel_credentials(open(certificate, "rb").read())
    name = ("grpc.ssl_target_name_override", "exchange.test")
    with grpc.secure_channel(f"{host}:{port}", credentials, options=[name]) as channel:
        channel.unary_unary(f"/{SERVICE}/Place")(b"x" * 100_000)
        print("open", flush=True)
        sys.stdin.readline()


def tell(method, code, sent, received, web=False):
    side = lambda messages: {"count": len(messages), "bytes": sum(map(len, messages))}
    told = {"service": SERVICE, "method": method, "status": code.value[0], "web": web}
    print(json.dumps(told | {"sent": side(sent), "received": side(received)}))


def unary(channel, request, web=False):
    call = channel.unary_unary(f"/{SERVICE}/Place", lambda it: it, lambda it: bytes(it))
    try:
        tell("Place", grpc.StatusCode.OK, [request], [call(request)], web)
    except grpc.RpcError as error:
        tell("Place", error.code(), [request], [], web)


def streamed(channel, count, web=False):
    call = channel.unary_stream(f"/{SERVICE}/Watch", lambda it: it, lambda it: bytes(it))
    request = b"%d" % count
    tell("Watch", grpc.StatusCode.OK, [request], list(call(request)), web)


def connect(host, port, web_port):
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for request in [b"one", b"x" * 100_000, b"", *REFUSALS]:
            unary(channel, request)
        for count in [0, 1, 200]:
            streamed(channel, count)
        requests = [b"a", b"bb" * 5000, b""]
        call = channel.stream_unary(f"/{SERVICE}/Batch")
        tell("Batch", grpc.StatusCode.OK, requests, [call(iter(requests))])
        call = channel.stream_stream(f"/{SERVICE}/Talk")
        tell("Talk", grpc.StatusCode.OK, requests, list(call(iter(requests))))
    with sonora.client.insecure_web_channel(f"http://{host}:{web_port}") as channel:
        for request in [b"one", b"x" * 100_000, *REFUSALS]:
            unary(channel, request, web=True)
        for count in [1, 200]:
            streamed(channel, count, web=True)


def connect_often(host, port, _):
    """A connection for each call: server and client speak first at the same time."""
    alone = [("grpc.use_local_subchannel_pool", 1)]
    for number in range(200):
        with grpc.insecure_channel(f"{host}:{port}", options=alone) as channel:
            unary(channel, b"%d" % number)


def stay(host, port, _):
    """A channel in use; then, once told to, calls of a method that it has called and of others."""
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        channel.unary_unary(f"/{SERVICE}/Place")(b"before")
        print("open", flush=True)
        sys.stdin.readline()
        for count in [3, 0]:
            streamed(channel, count)
        for request in [b"one", b"x" * 100_000, b"", *REFUSALS]:
            unary(channel, request)


COMMANDS = {
    "serve": serve,
    "serve_sealed": serve_sealed,
    "connect": connect,
    "connect_often": connect_often,
    "stay": stay,
    "stay_sealed": stay_sealed,
}
COMMANDS[sys.argv[1]](*sys.argv[2:])
