from collections import defaultdict
from collections.abc import Iterator

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SHOWN = ("proxy.destination", "http.response.status_code", "error.type")

app = FastAPI(telemetry={"tracing": False})
below: defaultdict[bytes, list[tuple[str, Span]]] = defaultdict(list)  # by the parent's id


@app.post("/v1/traces")
async def receive(request: Request) -> None:
    sent = ExportTraceServiceRequest.FromString(await request.body())
    for one in sent.resource_spans:
        names = {each.key: each.value.string_value for each in one.resource.attributes}
        for scope in one.scope_spans:
            for span in scope.spans:
                below[span.parent_span_id].append((names["service.name"], span))


@app.get("/", response_class=PlainTextResponse)
async def show(having: str = "") -> str:
    traces = ["\n".join(tree(service, span)) for service, span in below[b""]]
    return "\n\n".join([text for text in traces if having in text][-3:]) + "\n"


def tree(service: str, span: Span, indent: str = "") -> Iterator[str]:
    values = {each.key: each.value for each in span.attributes}
    found = [values[name] for name in SHOWN if name in values]
    words = [span.name, *(value.string_value or str(value.int_value) for value in found)]
    milliseconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    yield f"{indent}{service}: {' '.join(words)}, {milliseconds:.1f} ms"
    for child in sorted(below.get(span.span_id, []), key=lambda one: one[1].start_time_unix_nano):
        yield from tree(*child, indent=indent + "  ")
