"""A model's files: their digest, and their way into a store."""

from pathlib import Path
from typing import Annotated

import typer

from conch.commands.options import CaCertificate, Endpoint, Region, VirtualHosted


def digest(
    model: Annotated[
        str, typer.Argument(help="A model file, the folder of a model, or a source's URI.", metavar="PATH|URI")
    ],
    endpoint: Endpoint = None,
    region: Region = None,
    virtual_hosted: VirtualHosted = False,
    ca_certificate: CaCertificate = None,
) -> None:
    """Print the digest of a model's files, as `model.source.digest` wants it.

    A URI's model is fetched into a temporary folder (TMPDIR), as a model pod would, with credentials from the
    environment as conch push takes them. What its name stands for now (a commit, a manifest) is said on stderr.

    \b
    Examples:
      conch digest models/sentiment
      conch digest s3://models/sentiment/v3 --endpoint https://minio.example.com --ca-certificate ca.pem
      conch digest gs://models/sentiment/v3
      conch digest az://account/container/sentiment/v3
      conch digest hf://acme/sentiment@main
      conch digest oci://registry.example.com/models/sentiment:v3
      conch digest https://example.com/sentiment-v3.tar.gz
      kubectl exec POD -- conch digest /models/sentiment     (a claim, where it is mounted)
    """
    from conch.store.digest import tree_digest
    from conch.store.errors import StoreError

    try:
        if "://" not in model:
            if not Path(model).exists():
                raise typer.BadParameter(f"{model} does not exist, and is no URI such as s3://BUCKET/PATH")
            typer.echo(tree_digest(Path(model)))
            return
        from conch.store.push.environment import from_environment, source_of
        from conch.store.push.meter import Meter
        from conch.store.source_digest import source_digest

        meter = Meter()
        source = source_of(model, endpoint=endpoint, region=region, path_style=not virtual_hosted)
        fetched = source_digest(source, from_environment(source.place, ca_certificate=ca_certificate), meter)
        if fetched.resolved:
            meter.say(f"it is now {fetched.resolved}")
        typer.echo(fetched.digest)
    except StoreError as error:
        typer.secho(str(error), err=True)
        raise typer.Exit(1) from error


def push(
    model: Annotated[Path, typer.Argument(help="A model file, or the folder of a model.", metavar="DIR", exists=True)],
    uri: Annotated[str, typer.Argument(help="Where it shall be.", metavar="URI")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there: afterwards there is what is in DIR, no more.")
    ] = False,
    endpoint: Endpoint = None,
    region: Region = None,
    virtual_hosted: VirtualHosted = False,
    ca_certificate: CaCertificate = None,
    create: Annotated[
        bool, typer.Option("--create", help="Make the Hugging Face repository, private, if there is none (hf).")
    ] = False,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Namespace of the claim; kubectl's own if not given (pvc).")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(envvar="CONCH_IMAGE", help="Image of Conch, for the pod that writes to the claim (pvc)."),
    ] = None,
) -> None:
    """Upload a model, and print the `source:` to paste into a ModelDeployment, with its digest.

    Nothing that is there is replaced without --overwrite; a tag or branch (oci, hf) is moved to what is pushed, and the
    source printed names what it stands for now. A folder goes to https:// as an archive, by the URI's suffix: .tar.gz,
    .tar.zst or .tar.

    \b
    Credentials come from the environment:
      s3     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN (no profiles of ~/.aws);
             also AWS_ENDPOINT_URL, AWS_REGION
      gs     GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT_KEY or gcloud's application-default login
      az     AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, or AZURE_TENANT_ID, AZURE_CLIENT_ID and
             AZURE_CLIENT_SECRET
      hf     HF_TOKEN, or the login of hf auth login; also HF_ENDPOINT
      oci    docker's config.json (docker login), with its credential helpers; also DOCKER_CONFIG
      https  ~/.netrc (NETRC), or a bearer token in CONCH_TOKEN
      pvc    kubectl's context

    \b
    Examples:
      conch push models/sentiment s3://models/sentiment/v3 --endpoint https://minio.example.com
      conch push models/sentiment gs://models/sentiment/v3
      conch push models/sentiment az://account/container/sentiment/v3
      conch push models/sentiment hf://acme/sentiment/v3 --create
      conch push models/sentiment oci://registry.example.com/models/sentiment:v3
      conch push models/sentiment https://files.example.com/sentiment-v3.tar.gz
      conch push models/sentiment pvc://models/sentiment/v3 -n team --image registry.example.com/conch:0.1.0
    """
    from conch.store.errors import StoreError, without_query
    from conch.store.push.dispatch import push as push_to
    from conch.store.push.dispatch import yaml_of
    from conch.store.push.environment import from_environment, source_of
    from conch.store.push.meter import Meter
    from conch.store.push.settings import PushSettings

    try:
        source = source_of(uri, endpoint=endpoint, region=region, path_style=not virtual_hosted)
        settings = PushSettings(
            shown=without_query(uri),
            meter=Meter(),
            credentials=from_environment(source.place, ca_certificate=ca_certificate),
            overwrite=overwrite,
            create=create,
            namespace=namespace,
            image=image,
        )
        typer.echo(yaml_of(push_to(model, source, settings)), nl=False)
    except StoreError as error:
        typer.secho(str(error), err=True)
        raise typer.Exit(1) from error
