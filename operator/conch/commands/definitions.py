"""What the API server has to know."""

import typer


def crd() -> None:
    """Print the CustomResourceDefinition that this version of Conch serves.

    Example: conch crd | kubectl apply --server-side -f -
    """
    import yaml

    from conch.api.crd import custom_resource_definition

    typer.echo(yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120), nl=False)
