"""The section ``[distillation]`` of ``shopvision train matcher``: another model's probabilities to learn from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DistillationConfig(BaseModel):
    """The section.

    Attributes:
        teacher: a pair scorer, of any families and any size: ``NAME:TAG`` of the registry, or a model version's folder.
        weight: of what the teacher says beside what labels say, which have the rest; 1 goes by the teacher alone.
        temperature: by which log-odds of both are divided before they are compared: above 1 it counts more how sure the
            teacher is, and less on which side.
        candidates: partners of each training item by its texts, at most, that the teacher is asked about beside the
            labelled pairs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    teacher: str
    weight: float = Field(0.5, gt=0, le=1)
    temperature: float = Field(2.0, gt=0)
    candidates: int = Field(0, ge=0, le=100)
