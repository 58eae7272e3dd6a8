"""Makes one running upstream of its settings."""

from __future__ import annotations

from random import Random
from time import monotonic
from typing import TYPE_CHECKING

from fastapi_proxy_di.discovery.discovery import Discovery
from fastapi_proxy_di.forwarding.admission import Admission
from fastapi_proxy_di.forwarding.failure_log import FailureLog
from fastapi_proxy_di.forwarding.open_tunnels import OpenTunnels
from fastapi_proxy_di.forwarding.outage import Outage
from fastapi_proxy_di.forwarding.retries import RetryBudget
from fastapi_proxy_di.health.ejection import Ejector
from fastapi_proxy_di.health.slow_start import SlowStart
from fastapi_proxy_di.health.thresholds import Threshold
from fastapi_proxy_di.observability.changes import Changes
from fastapi_proxy_di.observability.instruments import instruments_of
from fastapi_proxy_di.observability.metrics import Metrics
from fastapi_proxy_di.observability.telemetry import Telemetry
from fastapi_proxy_di.pools.pool import Pool
from fastapi_proxy_di.settings import UpstreamSettings
from fastapi_proxy_di.supervision.events import Events
from fastapi_proxy_di.supervision.prober import Prober
from fastapi_proxy_di.supervision.supervisor import Supervisor
from fastapi_proxy_di.transport.factory import TransportFactory
from fastapi_proxy_di.upstream.rules import make_rules, policy_of, secret_headers
from fastapi_proxy_di.upstream.running import RunningUpstream
from fastapi_proxy_di.upstream.transports import Transports

if TYPE_CHECKING:
    from fastapi_proxy_di.cluster.cluster import Cluster


def compose(
    settings: UpstreamSettings,
    *,
    events: Events | None = None,
    random: Random | None = None,
    factory: TransportFactory | None = None,
    telemetry: Telemetry | None = None,
    cluster: Cluster | None = None,
) -> RunningUpstream:
    """Build the parts of one upstream, in the event loop that they will run in.

    Args:
        settings: The settings of the upstream.
        events: Emits the changes of state.
        random: Source of every random number, for picks, pauses and jitter.
        factory: Makes the transports to destinations; tests give their own.
        telemetry: The telemetry of the app.
        cluster: What the app shares with its other processes.

    Raises:
        ValueError: A setting has a fault that validation cannot find, such as a policy that
            cannot be imported or a certificate that cannot be read. The text begins with the
            setting.
    """
    events = events or Events()
    random = random or Random()  # noqa: S311  # spreads load, keeps no secret
    telemetry = telemetry or Telemetry()
    pool = Pool(
        settings.name,
        settings.destination_settings,
        panic=settings.when_none_available == "panic",
    )
    discovery = Discovery(settings, events, random)
    factory = factory or TransportFactory(settings)
    factory.dial_failed = discovery.dial_failed
    transports = Transports(factory, pool.destinations)
    supervisor = Supervisor(
        pool,
        Ejector(pool, settings.ejection),
        Threshold(settings.health.fall, settings.health.rise),
        SlowStart(settings.slow_start),
        events,
        window=settings.requests_window,
        keep=settings.discovery.keep,
    )
    retries = settings.retries
    running = RunningUpstream(
        events=events,
        random=random,
        pool=pool,
        supervisor=supervisor,
        transports=transports,
        discovery=discovery,
        prober=Prober(
            supervisor=supervisor,
            settings=settings.health,
            transport_for=transports.to_probe,
            headers=secret_headers(settings.health.headers),
            random=random,
        ),
        admission=Admission(supervisor, settings.limits, settings.max_requests),
        metrics=Metrics(settings.name, pool.destinations),
        changes=Changes(settings.name),
        budget=RetryBudget(retries.budget_share, retries.budget_minimum, started=monotonic()),
        outage=Outage(settings.name),
        failures=FailureLog(settings.name),
        tunnels=OpenTunnels(),
        instruments=instruments_of(telemetry) if telemetry.settings.metrics else None,
    )
    try:
        running.use(make_rules(settings, telemetry, policy_of(settings, running), running))
    except BaseException:
        running.discard()
        raise
    if cluster is not None:
        running.shared = cluster.share(
            supervisor,
            running.prober,
            discovery.weigh,
            random,
            lambda: running.rules.policy.name == "latency",
            running.numbers(),
        )
        running.admission.shared = running.shared.requests
    return running
