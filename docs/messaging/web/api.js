// The API: one address, commands in, answers out.

const SESSION = 'messaging-session';
const TIMEOUT_MS = 10_000;

/** What the API says is wrong; `code` is its word. */
export class ApiError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The user who is logged in, for as long as this tab lives. */
export const session = {
  load: () => JSON.parse(sessionStorage.getItem(SESSION)),
  save: (value) => sessionStorage.setItem(SESSION, JSON.stringify(value)),
  clear: () => sessionStorage.removeItem(SESSION),
};

/** Carries out `object/action`, and returns its answer. */
export async function call(object, action, values = {}) {
  const headers = { 'Content-Type': 'application/json' };
  const known = session.load();
  if (known !== null) headers.Authorization = `Bearer ${known.session}`;
  const response = await fetch('/ic.php', {
    method: 'POST',
    headers,
    body: JSON.stringify({ cmd: [{ amaiia_msg_srv: { [object]: { [action]: values } } }] }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const answer = await response.json().catch(() => null);
  if (answer === null) throw new ApiError('unavailable', `The server answered ${response.status}.`);
  if (answer.error) throw new ApiError(answer.error.code, answer.error.detail);
  return answer.cmd[0].amaiia_msg_srv[object][action];
}
