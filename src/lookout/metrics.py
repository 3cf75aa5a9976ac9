"""The vitals in the format of Prometheus: the only file that imports prometheus_client."""

from collections.abc import Iterator
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lookout.vitals import Histogram, Vitals

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics(Collector):
    """In a registry of its own: what others put into the global one is not shown."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._version = version("lookout-sqs")
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        vitals = self._vitals
        yield InfoMetricFamily("lookout_build", "Which Lookout this is.", value={"version": self._version})
        yield GaugeMetricFamily("lookout_healthy", "1 while all is well, else 0.", value=not vitals.problem())
        yield self._messages()
        yield GaugeMetricFamily(
            "lookout_messages_in_flight",
            "Messages that are held, and not settled yet.",
            value=vitals.held.in_flight,
        )
        yield self._deploys()
        yield _histogram("lookout_pull_seconds", "Pulls that have brought an image.", vitals.pulls)
        yield _histogram(
            "lookout_downtime_seconds",
            "How long neither the old nor the new container served, for each container.",
            vitals.downtimes,
        )
        yield CounterMetricFamily(
            "lookout_poll_errors", "Polls of the queue that failed.", vitals.poll_errors
        )
        yield CounterMetricFamily(
            "lookout_lease_errors", "Renewals that failed, of messages in flight.", vitals.lease_errors
        )

    def _messages(self) -> Metric:
        family = CounterMetricFamily(
            "lookout_messages", "How messages ended; each try counts.", labels=["outcome"]
        )
        for outcome, count in self._vitals.messages.items():
            family.add_metric([outcome.value], count)
        return family

    def _deploys(self) -> Metric:
        family = HistogramMetricFamily(
            "lookout_deploy_seconds", "Deploys, from their begin to their end.", labels=["outcome"]
        )
        for outcome, histogram in self._vitals.deploys.items():
            family.add_metric([outcome.value], _buckets(histogram), histogram.sum)
        return family


def _histogram(name: str, documentation: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, documentation, _buckets(histogram), histogram.sum)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Each with all that is below it, as Prometheus has them."""
    bounds = [*map(str, map(float, histogram.bounds)), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
