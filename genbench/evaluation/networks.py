"""The networks of an evaluation, loaded once and shared by both sides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from genbench.errors import UsageError
from genbench.evaluation.plan import Plan
from genbench.features import ExtractorOptions, FeatureExtractor, load_extractor
from genbench.features.image_text import ImageTextModel, load_image_text


@dataclass
class Networks:
    """The networks of a plan, loaded once and shared by both sides."""

    extractor: FeatureExtractor | None
    image_text: ImageTextModel | None

    @classmethod
    def load(
        cls,
        plan: Plan,
        options: ExtractorOptions,
        extractor: str | FeatureExtractor | None,
        image_text: str | ImageTextModel | None,
    ) -> Networks:
        """Load what the plan names, where no object was given. ``options.weights`` are the extractor's if there is one.

        Raises:
            UsageError, DataError: unknown names, or weights that are missing or unfit; says what to do.
        """
        if options.weights is not None and plan.extractor is None and plan.image_text is None:
            raise UsageError(f"No metric runs a network that {options.weights} could be of: leave the weights out.")
        text_options = options if plan.extractor is None else replace(options, weights=None)
        one = plan.extractor is not None and plan.extractor == plan.image_text and image_text is None
        if isinstance(extractor, str) or extractor is None:
            extractor = None if plan.extractor is None else load_extractor(plan.extractor, options)
        if one and hasattr(extractor, "encode_texts"):
            image_text = cast(ImageTextModel, extractor)
        if isinstance(image_text, str) or image_text is None:
            image_text = None if plan.image_text is None else load_image_text(plan.image_text, text_options)
        return cls(extractor, image_text)
