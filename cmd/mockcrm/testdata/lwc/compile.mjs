// Compiles the files of a component as Salesforce does when they are deployed.
// Usage: node compile.mjs FOLDER
import { readFileSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { transformSync } from '@lwc/compiler';

const folder = process.argv[2];
for (const file of readdirSync(folder).filter((f) => /\.(html|css|js)$/.test(f))) {
    const source = readFileSync(join(folder, file), 'utf8');
    const { code, warnings } = transformSync(source, file, { name: basename(folder), namespace: 'c' });
    if (!code || warnings?.length) {
        console.error(`${file}: ${JSON.stringify(warnings)}`);
        process.exit(1);
    }
    console.log(`ok ${file}`);
}
