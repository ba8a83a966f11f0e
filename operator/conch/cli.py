"""The command `conch`: the roles that run in the cluster and the tools for people."""

import asyncio
import os
import socket
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from conch.api import gateway_pod
from conch.client.protocol import WireProtocol

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

rollout = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rollout, name="rollout", help="See how a new revision of a model takes over.")


class OutputFormat(StrEnum):
    """For people, or for programs."""

    TEXT = "text"
    JSON = "json"


Endpoint = Annotated[
    str | None,
    typer.Option(help="https://HOST[:PORT] of the store where it is not the provider's own (s3, gs, az, hf)."),
]
Region = Annotated[str | None, typer.Option(help="Region of the bucket (s3).")]
VirtualHosted = Annotated[
    bool, typer.Option("--virtual-hosted", help="The bucket is in the host's name, BUCKET.HOST, not in the path (s3).")
]
CaCertificate = Annotated[
    Path | None, typer.Option(help="File with the certificate (PEM) of a private authority to trust.", dir_okay=False)
]

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Its namespace; default: the kubeconfig context's.")
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig; default: the current one.")]
ViaGateway = Annotated[bool, typer.Option("--via-gateway", help="Through Conch's gateways, not to a pod of the model.")]
GatewayNamespace = Annotated[str, typer.Option(help="Namespace of Conch and its gateways.")]

Name = Annotated[str, typer.Argument(help="Name of the ModelDeployment.", metavar="NAME")]
Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="text for people, json for programs.")]
AnswerTimeout = Annotated[
    float, typer.Option("--timeout", help="Seconds to wait for the operator's answer.", min=0.1, metavar="SECONDS")
]


@app.callback()
def conch() -> None:
    """Serve models with NVIDIA Triton on Kubernetes.

    On a PATH with kubectl, the commands are kubectl's too: kubectl conch why NAME
    """


@app.command()
def operator(
    settings: Annotated[Path, typer.Option(help="Settings file (YAML).")] = Path("/etc/conch/settings.yaml"),
    installation_key: Annotated[
        Path, typer.Option(help="File with the installation's key, at least 32 bytes; admin keys are derived from it.")
    ] = Path("/etc/conch/installation-key/key"),
    gateway_token: Annotated[
        Path, typer.Option(help="File with the token that gateways ask for; read anew each time.")
    ] = Path(gateway_pod.TOKEN_FILE),
    namespace: Annotated[
        str, typer.Option(envvar="CONCH_NAMESPACE", help="Namespace of the operator's own Lease, and of the gateways.")
    ] = "conch-system",
) -> None:
    """Run the operator until SIGTERM. Connects as the pod's service account, or as KUBECONFIG says.

    Example: KUBECONFIG=.cluster/kubeconfig conch operator --settings settings.yaml --installation-key key
    """
    from conch.app.logs import configure_logs
    from conch.app.operator import Operator
    from conch.kube.client import KubeClient
    from conch.runtime.garbage_collection import ShortCollections
    from conch.settings import OperatorSettings, SettingsError

    try:
        read = OperatorSettings.load(settings)
        key = installation_key.read_bytes().strip()
        gateway_token.read_text()
    except (SettingsError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    if len(key) < 32:
        raise typer.BadParameter(f"{installation_key} holds {len(key)} bytes; at least 32 are needed")
    configure_logs(format=read.log_format, level=read.log_level)

    ShortCollections().install()

    async def run() -> None:
        client = await KubeClient.connect()
        try:
            identity = f"{socket.gethostname()}-{os.getpid()}"
            await Operator(
                client,
                read,
                namespace=namespace,
                identity=identity,
                installation_key=key,
                gateway_token=lambda: gateway_token.read_text().strip(),
            ).run()
        finally:
            await client.close()

    asyncio.run(run())


@app.command()
def agent() -> None:
    """Run the sidecar of a model pod until SIGTERM; the assignment mounted into it tells what to serve."""
    from conch.agent.main import run
    from conch.agent.settings import AgentSettings

    asyncio.run(run(AgentSettings.from_env()))


@app.command()
def gateway() -> None:
    """Run the sidecar of a gateway's Envoy until SIGTERM: it says what Envoy routes, and holds requests.

    Connects as the pod's service account, or as KUBECONFIG says.
    """
    from conch.app.logs import configure_logs
    from conch.gateway.main import run
    from conch.gateway.settings import GatewaySettings

    settings = GatewaySettings.from_env()
    configure_logs(format=settings.log_format, level=settings.log_level)
    asyncio.run(run(settings))


@app.command()
def why(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Tell why a model does not come up.

    Prints the checks in order and which one does not pass, what was seen, and the next step. Reads with your own
    rights, and leaves out what you may not read. Exits with 0 when the ModelDeployment is ready, 1 when it is not, and
    2 when that cannot be told.

    \b
    Examples:
      conch why sentiment
      kubectl conch why sentiment -n team-a
      conch why sentiment --context production -o json
    """
    from conch.why.command import why as tell_why

    as_json = output is OutputFormat.JSON
    raise typer.Exit(asyncio.run(tell_why(name, namespace=namespace, context=context, as_json=as_json)))


@app.command()
def infer(
    name: Name,
    inputs: Annotated[
        Path | None,
        typer.Option("--input", help="The inputs: a .json or .npz file.", metavar="FILE", dir_okay=False, exists=True),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(
            help="The model's golden.json: send a sample, check the answer.",
            metavar="FILE",
            dir_okay=False,
            exists=True,
        ),
    ] = None,
    sample: Annotated[int, typer.Option(help="Which sample of the golden set, from 0.", min=0, metavar="N")] = 0,
    protocol: Annotated[WireProtocol, typer.Option(help="How to ask.")] = WireProtocol.HTTP,
    namespace: Namespace = None,
    context: Context = None,
    via_gateway: ViaGateway = False,
    gateway_namespace: GatewayNamespace = "conch-system",
    address: Annotated[
        str | None,
        typer.Option(
            help="Ask this server; NAME is then the model's, and no cluster is looked at.", metavar="HOST:PORT"
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.", min=0.1, metavar="SECONDS")] = 600,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="text, json, or a file to write the outputs to.", metavar="text|json|FILE.npz"
        ),
    ] = "text",
) -> None:
    """Send one request to a model, and print the answer and its time.

    The request goes through kubectl port-forward to a ready pod, or with --via-gateway to one of Conch's gateways,
    where it waits while the model has no replica. The time is the request's alone. What the model takes is printed
    where neither --input nor --golden is given.

    \b
    JSON is the Open Inference Protocol's, or each input's values by its name:
      {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.1, 0.2, 0.3, 0.4]}]}
      {"x": [[0.1, 0.2, 0.3, 0.4]]}
    npz holds an array for each input; arrays of text are BYTES.

    Exits with 0, with 1 when the answer is not the golden set's, and with 2 when there is none.

    \b
    Examples:
      conch infer sentiment --input texts.json
      conch infer sentiment -n team-a --input batch.npz --protocol grpc -o answer.npz
      conch infer sentiment --golden models/sentiment/golden.json --sample 3
      conch infer sentiment --via-gateway --input texts.json -o json
      conch infer sentiment --address sentiment.example.com:8000 --input texts.json
    """
    from conch.client.infer import Request
    from conch.client.infer import infer as ask
    from conch.client.run import run

    request = Request(
        name=name,
        namespace=namespace,
        context=context,
        protocol=protocol,
        inputs=inputs,
        golden=golden,
        sample=sample,
        address=address,
        via_gateway=via_gateway,
        gateway_namespace=gateway_namespace,
        output=output,
        timeout_seconds=timeout,
    )
    raise typer.Exit(run(ask(request)))


@app.command()
def port_forward(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    http_port: Annotated[int, typer.Option(help="Local port for HTTP; 0: any free one.", min=0, max=65535)] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Local port for gRPC; 0: any free one.", min=0, max=65535)] = 8001,
    via_gateway: ViaGateway = False,
    gateway_namespace: GatewayNamespace = "conch-system",
) -> None:
    """Make a model's HTTP and gRPC ports this machine's, until Ctrl-C.

    Forwards to one ready pod of the model by kubectl port-forward, and to another one when that goes away. With
    --via-gateway to one of Conch's gateways, where the model's replicas are balanced and requests wait while there is
    none; that needs the right to forward ports in the gateways' namespace.

    \b
    Examples:
      conch port-forward sentiment
      conch port-forward sentiment -n team-a --http-port 9000 --grpc-port 9001
      conch port-forward sentiment --via-gateway
    """
    from conch.client.port_forward import port_forward as forward
    from conch.client.run import run

    forwarding = forward(
        name,
        namespace=namespace,
        context=context,
        http_port=http_port,
        grpc_port=grpc_port,
        via_gateway=via_gateway,
        gateway_namespace=gateway_namespace,
    )
    raise typer.Exit(run(forwarding))


@app.command()
def promote(
    name: Name,
    full: Annotated[bool, typer.Option("--full", help="All the way, without any further step or check.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    timeout: AnswerTimeout = 30,
) -> None:
    """Let a rollout go on to its next step, whatever this one waits for.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch promote sentiment
      kubectl conch promote sentiment -n team-a --full
    """
    _ask("promote", name, namespace, context, timeout, full=full)


@app.command()
def abort(name: Name, namespace: Namespace = None, context: Context = None, timeout: AnswerTimeout = 30) -> None:
    """Roll back: all traffic goes to the stable revision again, and the new one is not tried again by itself.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch abort sentiment
      kubectl conch abort sentiment -n team-a
    """
    _ask("abort", name, namespace, context, timeout)


@app.command()
def retry(name: Name, namespace: Namespace = None, context: Context = None, timeout: AnswerTimeout = 30) -> None:
    """Try the revision that the spec asks for again after it was rolled back.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch retry sentiment
      kubectl conch retry sentiment -n team-a
    """
    _ask("retry", name, namespace, context, timeout)


@app.command()
def rollback(
    name: Name,
    to: Annotated[
        str | None, typer.Option("--to", help="A revision of conch rollout history. Default: the newest before.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    timeout: AnswerTimeout = 30,
) -> None:
    """Have an earlier revision serve again, whatever the spec asks for, until that changes or somebody retries it.

    It takes over as any new revision does. Asks the operator and prints its answer. Exits with 0 when that has done it,
    1 when it was refused or the operator does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch rollback sentiment
      conch rollback sentiment --to 0f3a2b1c4d
    """
    _ask("rollback", name, namespace, context, timeout, revision=to)


@app.command()
def pause(name: Name, namespace: Namespace = None, context: Context = None, timeout: AnswerTimeout = 30) -> None:
    """Have a rollout go no further; a revision that fails is still rolled back.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch pause sentiment
      kubectl conch pause sentiment -n team-a
    """
    _ask("pause", name, namespace, context, timeout)


@app.command()
def resume(name: Name, namespace: Namespace = None, context: Context = None, timeout: AnswerTimeout = 30) -> None:
    """Let a paused rollout go on.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch resume sentiment
      kubectl conch resume sentiment -n team-a
    """
    _ask("resume", name, namespace, context, timeout)


def _ask(
    verb: str,
    name: str,
    namespace: str | None,
    context: str | None,
    timeout: float,
    *,
    full: bool = False,
    revision: str | None = None,
) -> None:
    from conch.api.command import Verb
    from conch.client.run import run
    from conch.rollouts.asking import Request
    from conch.rollouts.command import command

    request = Request(verb=Verb(verb), full=full, revision=revision, timeout_seconds=timeout)
    raise typer.Exit(run(command(name, request, namespace=namespace, context=context)))


@rollout.command()
def status(
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until it is over, or until Ctrl-C.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Tell how far a rollout is: its steps, pods and checks, and what it waits for.

    JSON is the object's status.rollout, null if there is none; with --watch a line for each change.

    Exits with 0 once it is told, with 2 when it cannot be told. With --watch: with 0 when the revision that the spec
    asks for has the traffic, with 1 when it was rolled back.

    \b
    Examples:
      conch rollout status sentiment
      conch rollout status sentiment --watch
      kubectl conch rollout status sentiment -n team-a -o json
    """
    from conch.client.run import run
    from conch.rollouts.status import status as tell_status

    as_json = output is OutputFormat.JSON
    raise typer.Exit(run(tell_status(name, namespace=namespace, context=context, watch=watch, as_json=as_json)))


@rollout.command()
def history(
    name: Name, namespace: Namespace = None, context: Context = None, output: Output = OutputFormat.TEXT
) -> None:
    """List the revisions of a model that are known, the newest first: what they are, and why any was rolled back.

    Exits with 0, and with 2 when that cannot be told.

    \b
    Examples:
      conch rollout history sentiment
      kubectl conch rollout history sentiment -n team-a -o json
    """
    from conch.client.run import run
    from conch.rollouts.history import history as tell_history

    as_json = output is OutputFormat.JSON
    raise typer.Exit(run(tell_history(name, namespace=namespace, context=context, as_json=as_json)))


@app.command()
def simulate(
    trace: Annotated[
        Path,
        typer.Option(
            help="When requests came: a CSV or an access log, may be gzipped.", metavar="FILE", dir_okay=False
        ),
    ],
    column: Annotated[
        str | None, typer.Option(help="The CSV's column of times, by name or number; found if it is obvious.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="Later than this is late, such as 200ms.", metavar="TIME")
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(help="Of the requests that keep the objective; 95 if not given.", min=50, max=99.9)
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option(
            help="A batch of n takes A + B x n milliseconds, in each of the instances.",
            metavar="A,B,MAX_BATCH[,INSTANCES]",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--from", help="ModelDeployment to take what is not given from, and what was learnt.", metavar="NAME"
        ),
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    minimum: Annotated[
        int | None, typer.Option("--min", help="Fewest replicas; 1 if not given.", min=0, max=1000)
    ] = None,
    maximum: Annotated[
        int | None, typer.Option("--max", help="Most replicas; 100 if not given.", min=1, max=1000)
    ] = None,
    start: Annotated[
        int | None,
        typer.Option(help="Replicas at the beginning; what the first minute needs if not given.", min=0, max=1000),
    ] = None,
    idle: Annotated[
        str | None, typer.Option(help="With --min 0: to zero after so long without a request; 300s if not given.")
    ] = None,
    cold_start: Annotated[
        str | None, typer.Option(help="From a pod's creation until it serves; 60s if not given.", metavar="TIME")
    ] = None,
    gpu_hour_cost: Annotated[
        float | None, typer.Option(help="What an hour of a GPU costs, in any money.", min=0, metavar="COST")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of a replica; 1 if not given.", min=1, max=64)] = None,
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Beside HPA, Knative's KPA and KEDA, each at its best.")
    ] = True,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Draw load, replicas and late requests.", metavar="FILE.png|FILE.html"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for programs.")] = False,
) -> None:
    """Replay a trace of requests through the autoscaler: who would have been late, and what would it have cost?

    The very code that scales in the cluster runs against simulated replicas, before it is turned on for real. HPA, KPA
    and KEDA run beside it, each with the setting that is the best for this trace, known only afterwards.

    The trace is a CSV with a column of times (ISO 8601, or seconds to nanoseconds since 1970), or an access log with
    the time in brackets. No request is sent, and no cluster is looked at but with --from. Exits with 0, and with 2 when
    it cannot be told.

    \b
    Examples:
      conch simulate --trace access.csv --objective 200ms --curve 5,2.5,8 --cold-start 45s
      conch simulate --trace access.log.gz --from sentiment --output run.html
      conch simulate --trace requests.csv --column started_at --objective 2s --curve 300,80,16,2 --min 0 --idle 5m
      conch simulate --trace access.csv --from sentiment --gpu-hour-cost 2.5 --json --no-compare
    """
    from conch.simulate.command import simulate as replay
    from conch.simulate.options import Options

    options = Options(
        trace=trace,
        column=column,
        objective=objective,
        percentile=percentile,
        minimum=minimum,
        maximum=maximum,
        start=start,
        idle=idle,
        cold_start=cold_start,
        curve=curve,
        name=name,
        namespace=namespace,
        context=context,
        gpu_hour_cost=gpu_hour_cost,
        gpus=gpus,
        compare=compare,
        output=output,
        as_json=as_json,
    )
    raise typer.Exit(replay(options))


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition that this version of Conch serves.

    Example: conch crd | kubectl apply --server-side -f -
    """
    import yaml

    from conch.api.crd import custom_resource_definition

    typer.echo(yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120), nl=False)


@app.command()
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


@app.command()
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


def main() -> None:
    """Entry point of the console script."""
    app()
