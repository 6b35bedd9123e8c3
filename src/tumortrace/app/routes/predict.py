"""Probabilities and decisions for uploaded patches."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, UploadFile
from pydantic import BaseModel, Field

from tumortrace.app.problems import FORM, UPLOAD
from tumortrace.app.service import TheService, shown_name

router = APIRouter(prefix="/api", tags=["patches"])

ModelName = Annotated[str | None, Query(description="Name of a model as in /api/models; default the first")]


class Prediction(BaseModel):
    """What a model says of one image.

    Attributes:
        name: Of the uploaded file.
        label: Name of the class that is called at the model's threshold.
        probability: Calibrated, of the positive class.
        decision: Whether to rely on the call.
        in_distribution: Whether the image resembles the training images; null where the model cannot say.
        model: That answered.
        ood_score: How unlike the training images it is, larger being stranger; null where the model cannot say.
    """

    name: str = Field(examples=["patch.png"])
    label: str = Field(examples=["tumour"])
    probability: float = Field(ge=0, le=1, examples=[0.973])
    decision: Literal["positive", "negative", "refer"]
    in_distribution: bool | None
    model: str = Field(examples=["2026-11-21T141200Z-tumortrace"])
    ood_score: float | None


@router.post("/predict", responses=UPLOAD, dependencies=FORM)
async def predict(service: TheService, file: list[UploadFile], model: ModelName = None) -> list[Prediction]:
    """Predict one or many images, as `tumortrace predict` does; answers in their order."""
    served = service.catalogue.get(model)
    images = await service.patches(file, served)
    answers = await service.assess(images, served)
    return [Prediction(name=shown_name(each), **found) for each, found in zip(file, answers, strict=True)]
