// SPDX-License-Identifier: Apache-2.0
// versions.mjs -- which clients for Node are here, on one line.
import { readFileSync } from "node:fs";

const version = (name) => JSON.parse(readFileSync(new URL(`../node_modules/${name}/package.json`, import.meta.url))).version;
const names = ["openai", "ai", "@ai-sdk/openai", "undici"];
console.log(`Node ${process.versions.node}: ${names.map((name) => `${name} ${version(name)}`).join(", ")}`);
