"""A gRPC client that has no stubs: everything it knows comes from the server's reflection service."""

from __future__ import annotations

import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "kithkin.v1.RetrievalService" in database.get_services()
        service = DescriptorPool(database).FindServiceByName("kithkin.v1.RetrievalService")
        method = service.methods_by_name["SearchSimilarEntities"]
        request = GetMessageClass(method.input_type)()
        json_format.ParseDict({"entity": {"id": "s1"}, "topK": 4}, request)
        answer_type = GetMessageClass(method.output_type)
        call = channel.unary_unary(
            f"/{service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer_type.FromString,
        )
        answer = call(request, timeout=20)
        print(*(result.node.ref.id for result in answer.results))
        assert not any(name == "kithkin" or name.startswith("kithkin.") for name in sys.modules)


if __name__ == "__main__":
    main(sys.argv[1])
