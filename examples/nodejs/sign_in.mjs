// SPDX-License-Identifier: Apache-2.0
// Checks a passcode over gRPC: node sign_in.mjs USER < passcode
//
// Set SPARECODE_AGENT_NODES, SPARECODE_CA, SPARECODE_AGENT_CERTIFICATE,
// SPARECODE_AGENT_KEY, and PROTOS: the folder protos/ of Sparecode.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const TRY_MS = 3000;
const ALL_MS = 10000;
// The same request goes to the next node: it has the same request id.
const UNANSWERED = [
  grpc.status.UNAVAILABLE,
  grpc.status.DEADLINE_EXCEEDED,
  grpc.status.CANCELLED,
  grpc.status.RESOURCE_EXHAUSTED,
];

const { SPARECODE_AGENT_NODES, SPARECODE_CA, PROTOS, ...environment } = process.env;
const definition = loader.loadSync("sparecode/v1/authentication.proto", {
  includeDirs: [PROTOS],
  enums: String,
  keepCase: true,
});
const { AuthenticationService } = grpc.loadPackageDefinition(definition).sparecode.v1;
const credentials = grpc.credentials.createSsl(
  readFileSync(SPARECODE_CA),
  readFileSync(environment.SPARECODE_AGENT_KEY),
  readFileSync(environment.SPARECODE_AGENT_CERTIFICATE),
);
const clients = SPARECODE_AGENT_NODES.split(",").map(
  (node) => new AuthenticationService(node, credentials),
);

async function authenticate(username, passcode) {
  const request = { request_id: randomUUID(), username, passcode };
  const end = Date.now() + ALL_MS;
  for (let n = 0; ; n++) {
    const deadline = new Date(Math.min(Date.now() + TRY_MS, end));
    try {
      return await new Promise((resolve, reject) =>
        clients[n % clients.length].Authenticate(request, { deadline }, (error, answer) =>
          error ? reject(error) : resolve(answer),
        ),
      );
    } catch (error) {
      if (!UNANSWERED.includes(error.code) || Date.now() >= end) throw error;
      if (n % clients.length === clients.length - 1)
        await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

try {
  const passcode = readFileSync(0, "utf8").trim();
  const { decision } = await authenticate(process.argv[2], passcode);
  console.log(decision.replace("AUTHENTICATION_DECISION_", ""));
  // Anything else lets no one in. A next step is not shown here.
  process.exitCode = decision === "AUTHENTICATION_DECISION_ACCEPTED" ? 0 : 1;
} catch (error) {
  console.error(`No decision: ${error.message}`);
  process.exitCode = 3;
}
clients.forEach((client) => client.close());
