"""Which hosts are private registries of Amazon ECR, and what is said of AWS's errors."""

import pytest
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError

from lookout.aws import EcrRegistry, said


@pytest.mark.parametrize(
    ("host", "registry"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", EcrRegistry("123456789012", "eu-west-1", False)),
        (
            "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
            EcrRegistry("123456789012", "cn-north-1", False),
        ),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", EcrRegistry("123456789012", "us-east-1", True)),
        (
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:5000",
            EcrRegistry("123456789012", "eu-west-1", False),
        ),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", EcrRegistry("123456789012", "eu-west-1", False)),
        (
            "123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu",
            EcrRegistry("123456789012", "eusc-de-east-1", False),
        ),
    ],
)
def test_a_registry_of_ecr_is_known_by_its_host(host: str, registry: EcrRegistry) -> None:
    assert EcrRegistry.parse(host) == registry


@pytest.mark.parametrize(
    "host",
    [
        "docker.io",
        "public.ecr.aws",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn",
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com",
        "evil.123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "123456789012.dkr.ecr.eu-west-1.evil.example",
        "12345.dkr.ecr.eu-west-1.amazonaws.com",
    ],
)
def test_no_other_host_is_shown_a_token(host: str) -> None:
    assert EcrRegistry.parse(host) is None


def test_what_a_program_for_credentials_has_written_is_not_said() -> None:
    leaky = CredentialRetrievalError(provider="custom-process", error_msg="DEBUG token=hunter2\n")
    assert said(leaky) == "custom-process gave none"
    assert said(NoCredentialsError()) == "Unable to locate credentials"
    assert said(ValueError("two\nlines")) == "two lines"
