// The facts of a film before it is decoded: size, rate, and the presentation time of every frame, read from the packets of its video stream by
// ffprobe. Nothing that the file names is opened: only files or the pipe, and only containers that refer to nothing else.

import { SparseVilaError } from '../errors';
import type { FilmSource } from './source';
import { runTool, type ToolOptions, type Tools } from './tools';

/** Demuxers of single files with pictures in time. Playlists, image sequences, devices and scripts are not among them. */
const FORMATS = [
  ...['mov', 'mp4', 'matroska', 'webm', 'avi', 'flv', 'live_flv', 'mpegts', 'mpeg', 'mpegvideo', 'ogg', 'asf'],
  ...['apng', 'ivf', 'nut', 'mxf', 'rm', 'wtv', 'dv', 'yuv4mpegpipe', 'obu', 'm4v'],
];

/** The options before the input of ffprobe and ffmpeg. `maxPixels`: of one decoded frame. */
export function inputOptions({ from }: FilmSource, maxPixels: number): string[] {
  const isFile = 'path' in from;
  return [
    ...['-v', 'error', '-protocol_whitelist', isFile ? 'file' : 'pipe', '-format_whitelist', FORMATS.join(',')],
    // The decoder's bound is wider: it counts padding, and says less than the check of the size.
    ...['-max_pixels', String(Math.min(4 * maxPixels + 2 ** 20, 2 ** 31 - 1))],
    // With its protocol, a name may begin with a dash or look like a URL.
    ...['-i', isFile ? `file:${from.path}` : 'pipe:0'],
  ];
}

export interface FilmFacts {
  readonly codec: string;
  /** Pixels of a frame as it is shown, before rotation. */
  readonly width: number;
  readonly height: number;
  /** Frames per second as the container has it; 0: unknown. */
  readonly rate: number;
  /** Seconds of one unit of presentation times, as a fraction. */
  readonly unit: { readonly numerator: number; readonly denominator: number };
  /** Presentation times of the frames in units, ascending. */
  readonly times: readonly number[];
  /** The times among them at which decoding can begin, ascending; empty if unknown. */
  readonly keys: readonly number[];
}

/** Maximum number of frames of a film: 38 hours at 30 frames per second. */
const MOST_TIMES = 2 ** 22;

interface Read {
  readonly times: number[];
  readonly keys: number[];
  /** Packets without a time. */
  untimed: number;
  stream: ReadonlyMap<string, string> | undefined;
  complaints: string;
}

/**
 * Reads all packets of the film's video stream.
 * @throws SparseVilaError ERR_VIDEO_UNSUPPORTED, ERR_VIDEO_CORRUPT, ERR_VIDEO_EMPTY, ERR_VIDEO_TOO_LARGE, ERR_VIDEO_TOOL, ERR_VIDEO_TIMEOUT;
 *   `signal.reason`
 */
export async function probe(
  tools: Tools,
  source: FilmSource,
  maxPixels: number,
  options: Omit<ToolOptions, 'name' | 'input'>,
): Promise<FilmFacts> {
  const packets = await read(tools, source, maxPixels, options, 'packet=pts,flags');
  // Some containers give no presentation times of frames that are shown in another order than they are stored; the decoder knows them.
  const found =
    packets.untimed === 0
      ? packets
      : await read(tools, source, maxPixels, options, 'frame=best_effort_timestamp,key_frame');
  const { stream } = packets;
  if (stream === undefined || found.times.length === 0) throw noFrames(source);
  const [width, height] = shownSize(stream);
  // The decoder refused.
  if (!(width > 0 && height > 0)) throw unreadable(source, packets.complaints);
  if (width * height > maxPixels)
    throw new SparseVilaError(
      'ERR_VIDEO_TOO_LARGE',
      `Expected frames of at most ${maxPixels} pixels for ${source.name} but received ${width}×${height}; scale it down, or raise maxPixels.`,
    );
  return {
    codec: stream.get('codec_name') ?? 'unknown',
    ...{ width, height },
    rate: fraction(stream.get('avg_frame_rate'), '/') || 0,
    unit: unitOf(stream.get('time_base')),
    times: [...new Set(found.times.sort((a, b) => a - b))],
    keys: found === packets ? found.keys.sort((a, b) => a - b) : [],
  };
}

async function read(
  { ffprobe }: Tools,
  source: FilmSource,
  maxPixels: number,
  options: Omit<ToolOptions, 'name' | 'input'>,
  entries: string,
): Promise<Read> {
  const shown = `stream=codec_name,width,height,sample_aspect_ratio,avg_frame_rate,time_base:${entries}`;
  const args = [...inputOptions(source, maxPixels), '-select_streams', 'V:0', '-show_entries', shown, '-of', 'compact'];
  const { from, name } = source;
  const input = 'path' in from ? undefined : from.pieces;
  const run = runTool(ffprobe, args, { ...options, name, input }, (words) => unreadable(source, words));
  const result: Read = { times: [], keys: [], untimed: 0, stream: undefined, complaints: '' };
  let rest = '';
  for await (const piece of run.pieces) {
    const lines = (rest + Buffer.from(piece).toString('latin1')).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) take(line, result);
    if (result.times.length > MOST_TIMES)
      throw new SparseVilaError(
        'ERR_VIDEO_TOO_LARGE',
        `Expected at most ${MOST_TIMES} frames for ${name}, received more. Cut it.`,
      );
  }
  take(rest, result);
  result.complaints = run.complaints();
  requireWhole(source, result);
  return result;
}

/** Takes a line of ffprobe: `packet|pts=512|flags=K_`, `frame|…`, `stream|…`. */
function take(line: string, result: Read): void {
  const [kind = '', ...fields] = line.trim().split('|');
  const values = new Map(
    fields.map((field) => [field.slice(0, field.indexOf('=')), field.slice(field.indexOf('=') + 1)]),
  );
  if (kind === 'stream') result.stream = values;
  if (kind !== 'packet' && kind !== 'frame') return;
  const flags = values.get('flags') ?? '';
  // The container says that this frame is not shown.
  if (flags.includes('D')) return;
  const time = Number(values.get('pts') ?? values.get('best_effort_timestamp') ?? Number.NaN);
  if (!Number.isSafeInteger(time)) {
    result.untimed++;
    return;
  }
  result.times.push(time);
  if (flags.startsWith('K')) result.keys.push(time);
}

/** Numerator over denominator, such as `30000/1001` or `4:3`; NaN if there is none. */
const fraction = (text = '', between = '/'): number => {
  const [a, b] = text.split(between).map(Number);
  return a !== undefined && b !== undefined && b > 0 ? a / b : Number.NaN;
};

function unitOf(text = ''): FilmFacts['unit'] {
  const [numerator = 1, denominator = 1] = text.split('/').map(Number);
  return numerator > 0 && denominator > 0 ? { numerator, denominator } : { numerator: 1, denominator: 1 };
}

/** The size with square pixels: one side grows. */
function shownSize(stream: ReadonlyMap<string, string>): [width: number, height: number] {
  const [width, height] = [Number(stream.get('width')), Number(stream.get('height'))];
  const ratio = fraction(stream.get('sample_aspect_ratio'), ':');
  if (!(ratio > 0)) return [width, height];
  return ratio > 1 ? [Math.round(width * ratio), height] : [width, Math.round(height / ratio)];
}

/** Refuses a file that ends early. Counts of frames in headers are no help: they include those that are cut away, or fields. */
function requireWhole({ name }: FilmSource, { complaints }: Read): void {
  const complaint = /partial file|ended prematurely|truncat/i.exec(complaints)?.[0];
  if (complaint === undefined) return;
  throw new SparseVilaError(
    'ERR_VIDEO_CORRUPT',
    `Expected a whole video for ${name} but it is truncated (${complaint}); fetch or export it again.`,
  );
}

/** The error of a run that failed, by what ffmpeg or ffprobe wrote. */
export function unreadable({ name, from }: FilmSource, words: string): SparseVilaError {
  const reason =
    words
      .trim()
      .split('\n')
      .slice(-3)
      .join('; ')
      .replaceAll(/\[[^\]]* @ 0x[0-9a-f]+\] ?/g, '') || 'no reason given';
  const format = /\[(\S+) @ [^\]]*\] Format not on whitelist/.exec(words)?.[1];
  if (format !== undefined)
    return new SparseVilaError(
      'ERR_VIDEO_UNSUPPORTED',
      `Expected a video file for ${name}, such as MP4, WebM, MKV, MOV, AVI or GIF, but received ${format}, which is not opened: a still picture, a ` +
        'playlist, or a file that refers to others. Convert it.',
    );
  if (/max pixel count|Picture size .* is invalid/i.test(words))
    return new SparseVilaError(
      'ERR_VIDEO_TOO_LARGE',
      `Expected smaller frames for ${name} but ${reason}; scale it down.`,
    );
  const isUnseekable = 'bytes' in from && /not implemented/.test(words);
  const advice = /moov/.test(words)
    ? 'its index (moov) is missing: it is truncated'
    : isUnseekable
      ? 'its format cannot be read from bytes, without seeking: write it to a file and pass the path'
      : 'it is damaged, or no video';
  return new SparseVilaError('ERR_VIDEO_CORRUPT', `Expected a video for ${name} but ${advice} (${reason}).`);
}

function noFrames({ name }: FilmSource): SparseVilaError {
  return new SparseVilaError('ERR_VIDEO_EMPTY', `Expected a video with frames for ${name} but it has none.`);
}
