// GET /: the chat page, three files of the package. Its content security policy allows nothing from elsewhere.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { packageFolder } from '../runtime/paths';

const FILES: Readonly<Record<string, readonly [name: string, type: string]>> = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/page.css': ['page.css', 'text/css; charset=utf-8'],
  '/page.js': ['page.js', 'text/javascript; charset=utf-8'],
};

const POLICY = [
  ...["default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data: blob:", 'media-src blob:'],
  ...["connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
].join('; ');

/** The paths of the page, which need no API key: the page asks for one. */
export const PAGE_PATHS = Object.keys(FILES);

export function pageRoutes(app: FastifyInstance): void {
  for (const [path, [name, type]] of Object.entries(FILES)) {
    const content = readFileSync(join(packageFolder(), 'assets/page', name));
    app.get(path, async (_request, reply) => {
      reply.headers({
        'content-type': type,
        'content-security-policy': POLICY,
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cross-origin-opener-policy': 'same-origin',
        'cache-control': 'no-cache',
      });
      return content;
    });
  }
}
