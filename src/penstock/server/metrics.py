"""GET /metrics: the figures that Prometheus scrapes, and who may read them.

They tell how much is spent and which providers fail: not for everybody who may ask a question. By default
they are for administrators. Without keys there are none: then they are for whoever is on this machine, as
the gateway itself is.
"""

from starlette.requests import Request
from starlette.responses import Response

from penstock.server.context import Context, context
from penstock.server.guard import is_near
from penstock.types.errors import ClientError


async def metrics(request: Request) -> Response:
    """``GET /metrics``: raises `ClientError` 401, 403, and 404 `not_found` where metrics are switched off."""
    ctx = context(request)
    _admit(ctx, request)
    if ctx.metrics is None:
        message = "Metrics are switched off here: set telemetry.metrics.enabled."
        raise ClientError(message, code="not_found", status=404)
    body, content_type = await ctx.metrics(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type, "cache-control": "no-store"})


def _admit(ctx: Context, request: Request) -> None:
    if ctx.metrics_access == "open":
        ctx.guard.check_host(request.headers)
        return
    if is_near(request) and (ctx.metrics_access == "loopback" or not ctx.guard.wants_key):
        ctx.guard.check_host(request.headers)
        return
    principal = ctx.admit(request, spends=False)
    if not principal.admin:
        raise ClientError(
            "Metrics are for administrators: use a key that was made with --admin, or set "
            "telemetry.metrics.access.",
            code="admin_required",
            status=403,
        )
