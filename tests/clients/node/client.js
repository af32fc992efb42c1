// Asks a server of the toy bundle a few questions and prints the answers, and what it can read of the errors, as JSON.
//
//     node client.js HOST:PORT SERVICE_CONFIG FOLDER_OF_PROTOS ...
//
// Calls and messages are read from the .proto files; one of the folders holds google/rpc.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const [target, config, ...includeDirs] = process.argv.slice(2);
const definition = loader.loadSync("kithkin/v1/retrieval_service.proto", {
  includeDirs,
  keepCase: true,
  longs: Number,
  enums: String,
  oneofs: true,
  defaults: true,
});
const { kithkin } = grpc.loadPackageDefinition(definition);

const google = new protobuf.Root();
google.resolvePath = (_, path) =>
  includeDirs.map((folder) => join(folder, path)).find((found) => existsSync(found)) ?? path;
google.loadSync(["google/rpc/status.proto", "google/rpc/error_details.proto"]);

const client = new kithkin.v1.RetrievalService(target, grpc.credentials.createInsecure(), {
  "grpc.service_config": readFileSync(config, "utf8"),
});

function call(method, request) {
  const deadline = Date.now() + 30_000;
  return promisify(client[method].bind(client))(request, new grpc.Metadata(), { deadline });
}

const results = (scored) => scored.map(({ node, score }) => [node.ref.type, node.ref.id, node.name, score]);
const byId = (id, top_k) => ({ entity: { id }, top_k });

// What an error tells by its google.rpc details.
function readable(code, message, details) {
  const told = { code: grpc.status[code], message, violations: [] };
  for (const { type_url, value } of details) {
    const type = google.lookupType(type_url.split("/").pop());
    const detail = type.decode(value);
    if (type.name === "ErrorInfo") Object.assign(told, { reason: detail.reason, domain: detail.domain });
    if (type.name === "BadRequest") {
      told.violations = detail.fieldViolations.map(({ field, description }) => [field, description]);
    }
    if (type.name === "ResourceInfo") told.resource = [detail.resourceType, detail.resourceName];
  }
  return told;
}

function ofError(error) {
  const [trailer] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (trailer === undefined) throw error;
  const status = google.lookupType("google.rpc.Status").decode(trailer);
  return readable(error.code, error.details, status.details);
}

async function answer(method, request, read) {
  try {
    return read(await call(method, request));
  } catch (error) {
    return ofError(error);
  }
}

async function names() {
  const found = [];
  let page_token = "";
  do {
    const page = await call("ListEntities", { type: "Tag", page_size: 3, page_token });
    found.push(...page.nodes.map(({ name }) => name));
    page_token = page.next_page_token;
  } while (page_token);
  return found;
}

const found = {
  similar: await answer(
    "SearchSimilarEntities",
    { ...byId("1", 5), filter: { range: { property: "year", min: { int_value: 1991 } } } },
    (response) => results(response.results),
  ),
  recommend: await answer(
    "RetrieveEntitiesForUser",
    { events: { events: [{ entity: { id: "3" } }, { entity: { id: "4" }, weight: 2 }] }, top_k: 3 },
    (response) => results(response.results),
  ),
  batch: await answer(
    "BatchSearchSimilarEntities",
    { requests: [byId("1", 2), byId("99", 2)] },
    (response) =>
      response.items.map(({ response, error }) =>
        response ? results(response.results) : readable(error.code, error.message, error.details),
      ),
  ),
  embed: await answer("EmbedEntities", { items: [{ entity: { id: "10" } }] }, (response) => response.vectors[0].values),
  list: await names(),
  too_many: await answer("SearchSimilarEntities", byId("1", 5000), () => null),
  unknown: await answer("SearchSimilarEntities", byId("99", 1), () => null),
};
console.log(JSON.stringify(found));
client.close();
