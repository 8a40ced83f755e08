// Checks an OpenAPI document against redocly's recommended rules; every problem is an error. Needs no network.

const { createConfig, lint } = require("@redocly/openapi-core");

async function main(path) {
  const config = await createConfig({ extends: ["recommended-strict"] });
  const problems = await lint({ ref: path, config });
  for (const problem of problems) {
    console.error(`${path}${problem.location[0]?.pointer ?? ""}: ${problem.message} (${problem.ruleId})`);
  }
  process.exitCode = problems.length === 0 ? 0 : 1;
}

main(process.argv[2]);
