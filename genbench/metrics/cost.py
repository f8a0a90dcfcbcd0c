"""Figures of cost, as training and timing measured them; what was not measured is not applicable."""

from __future__ import annotations

from genbench.metrics.base import Estimate, Metric, MetricInputs, NotApplicable


class _Cost(Metric):
    """Passes ``inputs.cost[name]`` on."""

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate, as measured.

        Raises:
            NotApplicable: it was not measured.
        """
        if self.name not in inputs.cost:
            raise NotApplicable(f"{self.name} was not measured for this row")
        return [inputs.cost[self.name]]


class Parameters(_Cost):
    name = "parameters"
    summary = "number of trained parameters"


class TrainingSeconds(_Cost):
    name = "training_seconds"
    unit = "s"
    higher_is_better = False
    summary = "time spent training"


class TrainingImagesPerSecond(_Cost):
    name = "training_images_per_second"
    unit = "images/s"
    higher_is_better = True
    summary = "training throughput, validation included"


class ImagesPerSecond(_Cost):
    name = "images_per_second"
    unit = "images/s"
    higher_is_better = True
    summary = "sampling throughput, from noise to uint8 pixels"


class LatencySeconds(_Cost):
    name = "latency_seconds"
    unit = "s"
    higher_is_better = False
    summary = "time to sample one image alone"


class EvaluationsPerImage(_Cost):
    name = "evaluations_per_image"
    higher_is_better = False
    summary = "network evaluations to sample one image"


class PeakMemoryBytes(_Cost):
    name = "peak_memory_bytes"
    unit = "B"
    higher_is_better = False
    summary = "peak memory while sampling"
