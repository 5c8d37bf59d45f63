"""rank_plans: which of a promotion plan's pictures should represent it? Rankings to Postgres."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator

from worker.kinds import CatalogueId, ChunkResult, ItemFailed, JobKind, JobParams, StepContext
from worker.registration import register

MOST_URGENT_PLANS = 20  # so many named plans are taken for urgent: they are ranked in seconds


class RankParams(JobParams):
    """Parameters of a ranking.

    Attributes:
        scope: ``changed`` ranks plans of which anything differs from what this model last ranked (text, members,
            pictures, parameters), ``all`` ranks every plan.
        plan_ids: only these plans, changed or not.
        top_k: best pictures kept of each plan.
        bottom_k: worst pictures kept, for the report.
        min_candidates: a plan with fewer readable pictures fails.
        pictures: ``leading`` ranks one picture of each member item, ``all`` every one.
        recall: look for pictures in the whole library too, by the plan's name and keywords. A plan whose members have
            no picture does so anyway, where a model serves the role ``image_recall`` and its index is published.
        recall_model: ``name:tag``; by default the version that is active for ``image_recall`` at the start.
        most_found: so many pictures of the library at most for one plan.
        least_score: cosine from which on a picture of the library is taken; by default the recall model's own.
        undated: as beginning on which day a plan without a date is ranked: ``YYYY-MM-DD``, or ``today`` in the shop's
            time zone when the job begins; by default it has no season. The result says which day was taken.
        model: ``name:tag``; by default the version that is active for the role ``plan_ranker`` at the start. An
            ``image_recall`` ranks by how well a picture shows the plan's words, an ``image_ranker`` by expected clicks.
        urgent: go before other jobs; by default where ``plan_ids`` names at most 20 plans.
    """

    scope: Literal["changed", "all"] = "changed"
    plan_ids: list[CatalogueId] | None = Field(None, min_length=1)
    top_k: int = Field(50, ge=1, le=10_000)
    bottom_k: int = Field(5, ge=0, le=10_000)
    min_candidates: int = Field(1, ge=1)
    pictures: Literal["leading", "all"] = "leading"
    recall: bool = False
    recall_model: str | None = None
    most_found: int = Field(200, ge=1, le=10_000)
    least_score: float | None = Field(None, ge=-1, le=1)
    undated: str | None = Field(None, pattern="^(today|[0-9]{4}-[0-9]{2}-[0-9]{2})$")
    model: str | None = None
    urgent: bool | None = None

    @model_validator(mode="after")
    def _one_choice(self) -> RankParams:
        if self.plan_ids is not None and self.scope == "all":
            raise ValueError("give either scope=all or plan_ids: plans that are named are ranked, changed or not")
        return self


class RankPlans(JobKind[RankParams]):
    """See the module's docstring. Item keys are ``plan_id`` values."""

    name = "rank_plans"
    queue = "gpu.rank"
    chunk_size = 64
    params = RankParams

    def urgent(self, params: RankParams) -> bool:
        """A few plans that somebody names are waited for."""
        if params.urgent is not None:
            return params.urgent
        return params.plan_ids is not None and len(params.plan_ids) <= MOST_URGENT_PLANS

    def pin(self, params: RankParams) -> RankParams:
        """Every chunk uses the model that was active when the job began."""
        from shopvision.selection import job

        return params.model_copy(update=job.pin(params))

    def split(self, params: RankParams, context: StepContext) -> Iterable[str]:  # noqa: ARG002 - has one round
        """Ids of the plans to rank."""
        from shopvision.selection import job

        return job.plans_in_scope(params)

    def run(self, params: RankParams, keys: list[str], context: StepContext) -> ChunkResult:
        """Rank one chunk's plans."""
        from shopvision.selection import job

        report = job.work(params, keys, job_id=context.job_id, should_stop=context.should_stop)
        return ChunkResult(
            done=report.ranked,
            failures=[ItemFailed(*failed) for failed in report.failed],
            remaining=report.remaining,
            counters=report.counters,
            write=report.write,
            model_seconds=report.model_seconds,
            model_items=report.model_items,
        )

    def finish(self, params: RankParams, context: StepContext) -> dict[str, Any]:
        """Say what came of it."""
        from shopvision.selection import job
        from worker.ledger.progress import job_progress

        if params.model is None:
            return dict(job.WITHOUT_MODEL)
        progress = job_progress(context.job_id)
        result = {"model": params.model, "method": job.method_of(params), "plans": progress.done}
        if params.undated is not None:
            result["undated_as"] = params.undated
        return {**result, "failed": progress.failed, **progress.counters}


rank_plans = register(RankPlans())
