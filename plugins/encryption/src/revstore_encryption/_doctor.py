"""The checks of ``revstore doctor``: the file of keys, and the KMS plugins in it."""

from __future__ import annotations

from collections.abc import Iterator

from revstore.config import StorageConfig
from revstore.errors import ConfigError
from revstore.hooks import CheckResult, DoctorCheck
from revstore_encryption._configuration import read_configuration
from revstore_encryption._reload import exposure, read_options
from revstore_encryption._transformer import Transformers

__all__ = ["checks"]


def checks(config: StorageConfig) -> Iterator[DoctorCheck]:
    """Yield a check of the file, then one of each KMS plugin."""
    try:
        path, _ = read_options(config)
        configuration = read_configuration(path)
        Transformers(configuration)  # raises if a library is missing
    except ConfigError as error:
        yield DoctorCheck(name="encryption", result=CheckResult.FAILED, detail=str(error))
        return
    exposed = exposure(path)
    result = CheckResult.WARNING if exposed else CheckResult.OK
    yield DoctorCheck(name="encryption", result=result, detail=exposed)
    providers = [each for chain in configuration.resources.values() for each in chain]
    for kms in dict.fromkeys(each.kms for each in providers if each.kms is not None):
        from revstore_encryption._kms import cipher_of

        failure = cipher_of(kms).ask()
        result = CheckResult.FAILED if failure else CheckResult.OK
        yield DoctorCheck(name=f"kms {kms.name}", result=result, detail=failure)
