#!/usr/bin/env python3
"""Writes `src/cloud/limits.tsv`: what botocore's own models say of the inputs of the operations that the lab serves.

    python3 limits.py > src/cloud/limits.tsv        with AWS_ENDPOINT_URL of a lab, which tells what it serves

A line is: operation, member, type, required, minimum, maximum, pattern, values. Members of a form that may be any text are left out.
"""

import json
import os
import urllib.request

import botocore.session


def lines(operation, shape, path, required, seen):
    meta = shape.metadata
    values = "|".join(shape.enum) if shape.type_name == "string" and getattr(shape, "enum", None) else ""
    row = [operation[1], path, shape.type_name, "required" if required else "", str(meta.get("min", "")),
           str(meta.get("max", "")), meta.get("pattern", ""), values]
    # A form's text is a text; in a tree anything may stand where a text is wanted.
    plain = ("structure",) if operation[0] == "cloudwatch" else ("string", "structure")
    if path and (any(row[3:]) or shape.type_name not in plain):
        yield "\t".join(row)
    if shape.type_name == "structure" and shape.name not in seen:
        for name, member in shape.members.items():
            inner = f"{path}.{name}" if path else name
            yield from lines(operation, member, inner, name in shape.required_members, seen | {shape.name})
    elif shape.type_name == "list":
        query = operation[0] == "rds"
        item = f".{shape.member.serialization.get('name', 'member')}" if query else ""
        yield from lines(operation, shape.member, f"{path}{item}[]", False, seen)


def main():
    session = botocore.session.get_session()
    with urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/_lab/operations", timeout=10) as answer:
        served = json.load(answer)
    for service, operations in sorted(served.items(), reverse=True):
        model = session.get_service_model(service)
        for name in sorted(operations):
            shape = model.operation_model(name).input_shape
            for row in lines((service, name), shape, "", False, frozenset()):
                print(row)


if __name__ == "__main__":
    main()
