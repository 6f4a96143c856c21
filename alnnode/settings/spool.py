"""Section ``[spool]``: where received objects and results are stored."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from alnnode.settings.section import Section

BUCKET = '3 to 63 lower-case letters, digits, "." and "-"'


class SpoolPlace(Section):
    """A folder of [node] data_dir, which all hosts share; or a bucket of an S3-compatible object storage."""

    bucket: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$", description=BUCKET)] = (
        ""  # empty: the folder "spool" in data_dir
    )
    endpoint: Annotated[str, Field(pattern=r"^(https?://[^?#/]+)?$", description="http(s)://host:port, without a path")] = (
        ""  # empty: that of AWS for the region
    )
    region: Annotated[str, Field(min_length=1)] = "us-east-1"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$", description='up to 64 letters, digits, "_" and "-"')] = (
        ""  # of every key, so that several nodes can share a bucket
    )

    @model_validator(mode="after")
    def _endpoint_has_a_bucket(self) -> Self:
        if self.endpoint and not self.bucket:
            raise ValueError("an endpoint without a bucket has no effect; set bucket, or remove endpoint")
        return self
