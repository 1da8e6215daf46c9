"""A collector of OpenTelemetry's, and a provider that notes its headers: HTTP, in threads of the test."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Received:
    """What came: spans and metrics as OTLP has them, the headers of requests to the provider."""

    def __init__(self):
        self.spans, self.metrics, self.resources = [], {}, []
        self.headers, self.asked = [], []
        self.url = ""

    def span(self, name):
        """The only span with this name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


def attributes(thing):
    """Attributes of OTLP as a dictionary."""
    return {pair.key: _value(pair.value) for pair in thing.attributes}


def _value(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def listening():
    """Listen at any port: OTLP at ``/v1/traces`` and ``/v1/metrics``, Chat Completions elsewhere."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.headers.append((self.path, dict(self.headers)))
            if self.path == "/v1/traces":
                self._take_spans(body)
            elif self.path == "/v1/metrics":
                self._take_metrics(body)
            else:
                received.asked.append(json.loads(body))
                self._answer()

        def _take_spans(self, body):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                received.resources.append(attributes(resource.resource))
                for scope in resource.scope_spans:
                    received.spans += scope.spans
            self._done("application/x-protobuf")

        def _take_metrics(self, body):
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    received.metrics |= {metric.name: metric for metric in scope.metrics}
            self._done("application/x-protobuf")

        def _answer(self):
            self._done("text/event-stream", close=True)
            usage = {"prompt_tokens": 5, "completion_tokens": 7}
            for delta, finish in (({"content": "the answer"}, None), ({}, "stop")):
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-2026-01"}
                chunk |= {"choices": [choice], "usage": usage if finish else None}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

        def _done(self, content_type, *, close=False):
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.send_header(*(("connection", "close") if close else ("content-length", "0")))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
