// Reads Protocol Buffers messages: fields by number, without a schema.
// Source: protobuf.dev, "Encoding".

/** A field's value: a number for varints, bytes for everything else, including fixed-width fields. */
export type Field = { readonly number: number; readonly value: number | Uint8Array };

/** The fields of a message, in order. @throws Error for bytes that are not a message */
export function fieldsOf(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error('the message ends within a number');
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new Error('a number has more than ten bytes');
  };
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) throw new Error('the message ends within a field');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = varint();
    const [number, type] = [Math.floor(key / 8), key % 8];
    if (number === 0) throw new Error('a field has the number 0');
    if (type === 0) fields.push({ number, value: varint() });
    else if (type === 1) fields.push({ number, value: take(8) });
    else if (type === 2) fields.push({ number, value: take(varint()) });
    else if (type === 5) fields.push({ number, value: take(4) });
    else throw new Error(`a field has the type ${type}`);
  }
  return fields;
}
