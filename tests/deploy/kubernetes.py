"""Objects of Kubernetes (YAML, from stdin) as one JSON object: all of them, and what the published schemas of these versions, if any, have
against those that are Kubernetes' own. Custom resources have no schema here."""
import json
import sys

import yaml

OWN = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1", "batch/v1")
objects = [one for one in yaml.safe_load_all(sys.stdin) if one]
wrong = []
for version in sys.argv[1:]:
    import kubernetes_validate

    for one in objects:
        if one["apiVersion"] not in OWN:
            continue
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            text = getattr(error, "message", str(error))
            wrong.append(f"{version}: {one['kind']} {one['metadata']['name']}: {text}"[:500])
json.dump({"objects": objects, "wrong": wrong}, sys.stdout, default=str)
