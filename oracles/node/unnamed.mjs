// Takes every address out of package-lock.json: where a package comes from is the reader's own choice, its hash is not.
import { readFileSync, writeFileSync } from "node:fs";

const lock = JSON.parse(readFileSync("package-lock.json"));
for (const said of Object.values(lock.packages)) {
  delete said.resolved;
  delete said.funding;
}
writeFileSync("package-lock.json", JSON.stringify(lock, null, 2) + "\n");
