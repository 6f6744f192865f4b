// Holds the conversation and prints a JSON report: node typescript-N.mjs http URL | stdio COMMAND ARGUMENT...
// The steps for both generations of the SDK, which differ only in their imports.
import { readFileSync } from "node:fs";

export async function talk(Client, Http, Stdio, options = {}) {
  const steps = JSON.parse(readFileSync(new URL("./steps.json", import.meta.url)));
  const [way, target, ...args] = process.argv.slice(2);
  const transport =
    way === "http" ? new Http(new URL(target)) : new Stdio({ command: target, args, env: process.env });
  const client = new Client({ name: "ascl-test", version: "1" }, options);
  await client.connect(transport);
  const call = (given) => client.callTool({ name: steps.tool, arguments: given });
  const report = {
    protocol: client.getNegotiatedProtocolVersion?.() ?? transport.protocolVersion ?? null,
    tools: (await client.listTools()).tools.map((tool) => tool.name),
    question: await call(steps.question),
    nulls: await call(steps.nulls),
    wrong: await call(steps.wrong),
    resources: (await client.listResources()).resources.map((resource) => resource.uri),
    templates: (await client.listResourceTemplates()).resourceTemplates.map((each) => each.uriTemplate),
    rulebook: JSON.parse((await client.readResource({ uri: steps.resource })).contents[0].text),
    rule: JSON.parse((await client.readResource({ uri: steps.rule })).contents[0].text),
    prompts: (await client.listPrompts()).prompts.map((prompt) => prompt.name),
    prompt: (await client.getPrompt({ name: steps.prompt })).messages[0].content.text,
    unknown: await client.getPrompt({ name: "nothing" }).then(() => null, (error) => error.code),
  };
  await client.close();
  console.log(JSON.stringify(report));
}
