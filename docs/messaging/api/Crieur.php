<?php

declare(strict_types=1);

/*
 * Publishes notifications to crieur. One file without dependencies, to copy: PHP 8.1 or later.
 *
 *     $crieur = new Crieur('unix:///run/crieur/publish.sock', $token);
 *     $result = $crieur->publish(['channel' => 'Production', 'text' => 'Bonjour']);
 *     if (!$result->isSent()) error_log("not notified: $result->detail");
 *
 * Each notification goes on a WebSocket of its own (RFC 6455), which the server closes with the number
 * of connections that it was delivered to; or by POST /publish, where the server has that. Nothing is
 * thrown unless `orThrow()` is called on a result, and no call lasts longer than its time-out.
 *
 * Each notification has a key. Where the answer is lost, it is published a second time with the same key, and
 * the server delivers it only if it hasn't yet. That is done where it is safe:
 *   - A server with a history knows the key for as long as the notification is in it.
 *   - A server whose history is off refuses keys. It gets the notification without one, once.
 *   - An older server ignores keys, and has no position. What it may have got isn't published again.
 */
final class Crieur
{
    public const WEBSOCKET = 'websocket';
    public const HTTP = 'http';

    private const PUBLISH = '/publish';
    private const POSITION = '/position';
    private const KEY_BYTES_MAX = 128;
    private const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
    /** The answers of servers that publish over WebSocket only. */
    private const NO_HTTP = [404, 405, 426];

    private const TEXT = 0x1;
    private const CLOSE = 0x8;
    private const PING = 0x9;
    private const PONG = 0xA;
    private const TOO_BIG = 1009;

    /** Whether the server has refused a key. */
    private bool $refusesKeys = false;
    // Of the attempt, and the notification, that is being published.
    /** Whether it was written whole, so that the server may have it. */
    private bool $isWritten = false;
    /** Whether the server has told a position since; `null` if it wasn't asked. */
    private ?bool $hasPosition = null;
    private float $givesUpAt = INF;

    /**
     * @param string $address `unix:///path` or `tcp://127.0.0.1:8001`. An IP address: looking up a
     *     name takes as long as it takes.
     * @param float $totalSeconds for a call, however many notifications it has
     */
    public function __construct(
        private readonly string $address,
        private readonly ?string $token = null,
        private readonly float $connectSeconds = 0.2,
        private readonly float $totalSeconds = 1.0,
        private string $way = self::WEBSOCKET,
    ) {
    }

    /**
     * @param array<string, mixed> $notification
     * @param ?string $key the same for each attempt to publish this notification, of later calls too; by default
     *     one that is good for this call
     * @param bool $keep `false` for what concerns only those who are there now, such as somebody who is typing: the
     *     server doesn't keep it for clients that come back, and it isn't published again
     */
    public function publish(
        array $notification,
        string $type = 'notification',
        ?string $key = null,
        bool $keep = true,
    ): CrieurResult {
        $options = ($key === null ? [] : ['key' => $key]) + ($keep ? [] : ['keep' => false]);
        return $this->publishAll([['type' => $type] + $options + ['notification' => $notification]])[0];
    }

    /**
     * Publishes in this order. After a server that can't be reached or takes too long, the rest is not tried.
     *
     * @param list<array{type?: string, key?: string, keep?: bool, notification: array<string, mixed>}> $messages
     * @param ?float $seconds a time-out shorter than the usual one
     * @return list<CrieurResult> one for each message
     */
    public function publishAll(array $messages, ?float $seconds = null): array
    {
        return $this->inTime($seconds, function (float $deadline) use ($messages): array {
            $results = [];
            $gaveUp = null;
            foreach ($messages as $message) {
                $result = $gaveUp ?? $this->deliver($message, $deadline);
                if (in_array($result->error, [CrieurResult::UNREACHABLE, CrieurResult::TIMEOUT], true)) {
                    $gaveUp = $result;
                }
                $results[] = $result;
            }
            return $results;
        });
    }

    /**
     * The position in the server's history, as `id` of the result. What is read from the database behind this call,
     * in a transaction that was begun behind it, has everything that was published up to there.
     */
    public function position(?float $seconds = null): CrieurResult
    {
        return $this->inTime($seconds, $this->askForPosition(...));
    }

    private function inTime(?float $seconds, callable $work): mixed
    {
        // The application may have a handler that throws at each warning.
        set_error_handler(static fn (): bool => true);
        try {
            return $work(self::now() + min($this->totalSeconds, $seconds ?? $this->totalSeconds));
        } finally {
            restore_error_handler();
        }
    }

    private function deliver(array $message, float $deadline): CrieurResult
    {
        $isKept = ($message['keep'] ?? true) !== false;
        $key = $message['key'] ?? null;
        if ($key !== null && (!$isKept || !self::isKey($key))) {
            return CrieurResult::failed(CrieurResult::INVALID, 'a key has 1 to 128 bytes, and is for what is kept');
        }
        $plain = array_diff_key($message, ['key' => true]);
        if (!$isKept || $this->refusesKeys) {
            return $this->attempt($plain, $deadline);
        }
        $keyed = ['key' => $key ?? bin2hex(random_bytes(16))] + $plain;
        $this->hasPosition = null;
        $result = $this->attempt($keyed, $deadline, isFirst: true);
        $mayHaveArrived = $this->isWritten;
        $isSafe = match ($result->error) {
            CrieurResult::TIMEOUT => $this->hasPosition === true,
            CrieurResult::BROKEN => !$mayHaveArrived || $this->knowsKeys($deadline),
            default => false,
        };
        if ($isSafe) {
            $second = $this->attempt($keyed, $deadline);
            if ($mayHaveArrived) {
                return $second->isSent() ? $second : $result;
            }
            $result = $second;
        }
        if (str_starts_with($result->detail ?? '', 'invalid-notification')) {
            // It may only be the key.
            $result = $this->attempt($plain, $deadline);
            $this->refusesKeys = $result->isSent();
        }
        return $result;
    }

    private static function isKey(mixed $key): bool
    {
        return is_string($key) && $key !== '' && strlen($key) <= self::KEY_BYTES_MAX;
    }

    /** Whether the server knows a key, or else refuses it: then it has a position. Servers that ignore keys have none. */
    private function knowsKeys(float $deadline): bool
    {
        return $this->hasPosition ??= $this->askForPosition($deadline)->id !== null;
    }

    /** Gives up halfway if it is the first one and a second is safe. Otherwise it has all of the time. */
    private function attempt(array $message, float $deadline, bool $isFirst = false): CrieurResult
    {
        $this->isWritten = false;
        $this->givesUpAt = $isFirst ? (self::now() + $deadline) / 2 : INF;
        return self::caught(fn (): CrieurResult => $this->send(self::encode($message), $deadline));
    }

    private function askForPosition(float $deadline): CrieurResult
    {
        return self::caught(function () use ($deadline): CrieurResult {
            $stream = CrieurStream::connect($this->address, $this->connectSeconds, $deadline);
            $stream->write($this->head('GET ' . self::POSITION) . "Connection: close\r\n\r\n");
            [$status, $fields] = $stream->readHead();
            $body = $stream->readBody($status, $fields);
            return $status === 200 ? CrieurResult::at(self::idIn(json_decode($body, true))) : self::refusal($status, $body);
        });
    }

    private static function caught(callable $work): CrieurResult
    {
        try {
            return $work();
        } catch (CrieurException $failure) {
            return CrieurResult::failed($failure->error, $failure->getMessage());
        } catch (Throwable $failure) {
            return CrieurResult::failed(CrieurResult::PROTOCOL, $failure->getMessage());
        }
    }

    private function send(string $json, float $deadline): CrieurResult
    {
        if ($this->way === self::HTTP) {
            $result = $this->post($json, $deadline);
            if ($result !== null) {
                return $result;
            }
            $this->way = self::WEBSOCKET;
        }
        return $this->sendAndAwaitClose($json, $deadline);
    }

    private static function encode(array $message): string
    {
        $message = ['sender' => 'server'] + $message;
        try {
            $flags = JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION;
            return json_encode($message, $flags | JSON_THROW_ON_ERROR);
        } catch (JsonException $error) {
            throw new CrieurException(CrieurResult::INVALID, 'not JSON: ' . $error->getMessage());
        }
    }

    // Over WebSocket.

    private function sendAndAwaitClose(string $json, float $deadline): CrieurResult
    {
        $this->isWritten = false;
        $stream = $this->connect($deadline);
        $key = base64_encode(random_bytes(16));
        $stream->write($this->head('GET /') . "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            . "Sec-WebSocket-Key: $key\r\nSec-WebSocket-Version: 13\r\n\r\n");
        [$status, $fields] = $stream->readHead();
        if ($status !== 101) {
            return self::refusal($status, $stream->readBody($status, $fields));
        }
        // Section 4.1 of RFC 6455.
        $accept = base64_encode(sha1($key . self::GUID, true));
        if (($fields['sec-websocket-accept'] ?? '') !== $accept || strtolower($fields['upgrade'] ?? '') !== 'websocket') {
            throw new CrieurException(CrieurResult::PROTOCOL, 'what answers is no WebSocket server');
        }
        $stream->write(self::frame(self::TEXT, $json));
        $this->isWritten = true;
        $said = null;
        for (;;) {
            [$opcode, $payload] = self::readFrame($stream);
            if ($opcode === self::CLOSE) {
                $stream->write(self::frame(self::CLOSE, substr($payload, 0, 2)));
                return self::closed($payload, $said);
            }
            if ($opcode === self::PING) {
                $stream->write(self::frame(self::PONG, $payload));
            } elseif ($opcode === self::TEXT) {
                $said = $payload;
            }
        }
    }

    /** What a Close and the message before it say. */
    private static function closed(string $payload, ?string $said): CrieurResult
    {
        $status = strlen($payload) < 2 ? 1005 : unpack('n', $payload)[1];
        if ($status === 1000) {
            return self::taken(substr($payload, 2));
        }
        return self::failure($said ?? '', $status === self::TOO_BIG, "closed with $status " . substr($payload, 2));
    }

    /** A masked frame (section 5.2 of RFC 6455). */
    private static function frame(int $opcode, string $payload): string
    {
        $length = strlen($payload);
        $header = match (true) {
            $length < 126 => pack('CC', 0x80 | $opcode, 0x80 | $length),
            $length < 65536 => pack('CCn', 0x80 | $opcode, 0x80 | 126, $length),
            default => pack('CCJ', 0x80 | $opcode, 0x80 | 127, $length),
        };
        $mask = random_bytes(4);
        return $header . $mask . ($payload ^ str_pad('', $length, $mask));
    }

    /** @return array{int, string} opcode and payload of a whole, unmasked frame */
    private static function readFrame(CrieurStream $stream): array
    {
        [$first, $second] = array_values(unpack('C2', $stream->read(2)));
        $length = match ($second) {
            126 => unpack('n', $stream->read(2))[1],
            127 => unpack('J', $stream->read(8))[1],
            default => $second,
        };
        if (($first & 0xF0) !== 0x80 || ($second & 0x80) !== 0 || $length > CrieurStream::BYTES_MAX || $length < 0) {
            throw new CrieurException(CrieurResult::PROTOCOL, 'a frame that no server of notifications sends');
        }
        return [$first & 0x0F, $stream->read($length)];
    }

    // Over HTTP.

    /** `null` if the server doesn't publish over HTTP. */
    private function post(string $json, float $deadline): ?CrieurResult
    {
        $stream = $this->connect($deadline);
        $stream->write($this->head('POST ' . self::PUBLISH) . "Content-Type: application/json\r\nConnection: close\r\n"
            . 'Content-Length: ' . strlen($json) . "\r\n\r\n" . $json);
        $this->isWritten = true;
        [$status, $fields] = $stream->readHead();
        if (in_array($status, self::NO_HTTP, true)) {
            return null;
        }
        $body = $stream->readBody($status, $fields);
        return $status === 200 ? self::taken($body) : self::refusal($status, $body);
    }

    // What both share.

    private function connect(float $deadline): CrieurStream
    {
        $givesUp = fn (): bool => $this->isWritten && $this->knowsKeys($deadline);
        return CrieurStream::connect($this->address, $this->connectSeconds, $deadline, $this->givesUpAt, $givesUp);
    }

    private function head(string $request): string
    {
        $host = str_starts_with($this->address, 'unix:') ? 'localhost' : preg_replace('~^\w+://~', '', $this->address);
        $authorization = $this->token === null ? '' : "Authorization: Bearer $this->token\r\n";
        return "$request HTTP/1.1\r\nHost: $host\r\n$authorization";
    }

    private static function taken(string $text): CrieurResult
    {
        $answer = json_decode($text, true);
        if (!is_array($answer) || !is_int($answer['delivered'] ?? null)) {
            throw new CrieurException(CrieurResult::PROTOCOL, 'the server did not say to how many it was delivered');
        }
        $id = isset($answer['id']) ? self::idIn($answer) : null;
        return CrieurResult::sent($answer['delivered'], (int) ($answer['dropped'] ?? 0), $id, ($answer['repeated'] ?? false) === true);
    }

    private static function idIn(mixed $answer): string
    {
        $id = is_array($answer) ? $answer['id'] ?? null : null;
        $isId = is_string($id) && $id !== '';
        return $isId ? $id : throw new CrieurException(CrieurResult::PROTOCOL, 'the server gave something that is no id');
    }

    private static function refusal(int $status, string $body): CrieurResult
    {
        return self::failure($body, $status === 413, "refused with status $status");
    }

    /** What the server says in `$text` is wrong; else what is seen from here. */
    private static function failure(string $text, bool $isTooBig, string $otherwise): CrieurResult
    {
        $answer = json_decode($text, true);
        $error = is_array($answer) ? $answer['error'] ?? null : null;
        $code = is_array($error) ? (string) ($error['code'] ?? '') : '';
        $isInvalid = $isTooBig || in_array($code, ['invalid-notification', 'invalid-json'], true);
        return CrieurResult::failed(
            $isInvalid ? CrieurResult::INVALID : CrieurResult::REFUSED,
            is_array($error) ? "$code: " . ($error['detail'] ?? '') : $otherwise,
        );
    }

    private static function now(): float
    {
        return hrtime(true) / 1e9;
    }
}

/** What has become of a notification. */
final class CrieurResult
{
    /** No server takes this: it is no JSON, or no notification, or too big. */
    public const INVALID = 'invalid';
    /** Nobody listens at the address, or not in time. */
    public const UNREACHABLE = 'unreachable';
    /** The server did not answer in time. It may have delivered the notification. */
    public const TIMEOUT = 'timeout';
    /** The connection broke before the answer. The server may have delivered the notification. */
    public const BROKEN = 'broken';
    /** The server said no: a wrong token, or it is full. */
    public const REFUSED = 'refused';
    /** What came is no answer. */
    public const PROTOCOL = 'protocol';

    private function __construct(
        /** To how many connections it was delivered; `null` if that is not known. */
        public readonly ?int $delivered,
        /** How many connections were too slow, and were closed. */
        public readonly int $dropped,
        /** `null`, or one of the words above. */
        public readonly ?string $error,
        /** The same for the log. */
        public readonly ?string $detail,
        /** The server's id of the notification, or the position; `null` for what isn't kept, and from older servers. */
        public readonly ?string $id = null,
        /** Whether the server had it already, by its key, and has not delivered it again. */
        public readonly bool $repeated = false,
    ) {
    }

    public static function sent(int $delivered, int $dropped, ?string $id, bool $repeated): self
    {
        return new self($delivered, $dropped, null, null, $id, $repeated);
    }

    public static function at(string $position): self
    {
        return new self(null, 0, null, null, $position);
    }

    public static function failed(string $error, string $detail): self
    {
        return new self(null, 0, $error, $detail);
    }

    public function isSent(): bool
    {
        return $this->error === null;
    }

    /** Whether there is no answer, though there may have been one. */
    public function isLost(): bool
    {
        return in_array($this->error, [self::TIMEOUT, self::BROKEN], true);
    }

    /** @throws CrieurException if it was not sent */
    public function orThrow(): self
    {
        return $this->isSent() ? $this : throw new CrieurException($this->error, $this->detail);
    }
}

final class CrieurException extends RuntimeException
{
    public function __construct(public readonly string $error, string $detail)
    {
        parent::__construct($detail);
    }
}

/** A stream whose every operation ends at a deadline. Internal to this file. */
final class CrieurStream
{
    /** More than any answer has. */
    public const BYTES_MAX = 65536;

    private string $buffer = '';

    /** @param resource $socket */
    private function __construct(
        private readonly mixed $socket,
        private readonly float $deadline,
        private float $givesUpAt,
        private readonly ?Closure $givesUp,
    ) {
    }

    /** @param ?Closure $givesUp asked once, at `$givesUpAt`, whether it ends there, before the deadline */
    public static function connect(
        string $address,
        float $seconds,
        float $deadline,
        float $givesUpAt = INF,
        ?Closure $givesUp = null,
    ): self {
        $seconds = min($seconds, $deadline - hrtime(true) / 1e9);
        if ($seconds <= 0) {
            throw new CrieurException(CrieurResult::TIMEOUT, 'no time left to connect');
        }
        $socket = @stream_socket_client($address, $code, $error, $seconds);
        if ($socket === false) {
            throw new CrieurException(CrieurResult::UNREACHABLE, "cannot connect to $address: $error");
        }
        stream_set_blocking($socket, false);
        // Otherwise a read would wait for more than there is.
        stream_set_read_buffer($socket, 0);
        return new self($socket, $deadline, $givesUpAt, $givesUp);
    }

    public function __destruct()
    {
        fclose($this->socket);
    }

    /** A server that has gone may have said why: that shows when its answer is read. */
    public function write(string $bytes): void
    {
        while ($bytes !== '') {
            $this->await(forWriting: true);
            $written = @fwrite($this->socket, $bytes);
            if ($written === false) {
                return;
            }
            $bytes = substr($bytes, $written);
        }
    }

    public function read(int $length): string
    {
        while (strlen($this->buffer) < $length) {
            $this->fill() || throw self::broken();
        }
        $bytes = substr($this->buffer, 0, $length);
        $this->buffer = substr($this->buffer, $length);
        return $bytes;
    }

    /** @return array{int, array<string, string>} status and fields of a response */
    public function readHead(): array
    {
        while (($end = strpos($this->buffer, "\r\n\r\n")) === false) {
            $isCut = strlen($this->buffer) <= self::BYTES_MAX && str_starts_with('HTTP/1.', substr($this->buffer, 0, 7));
            if (strlen($this->buffer) > self::BYTES_MAX || !$this->fill()) {
                throw $isCut ? self::broken() : self::notHttp();
            }
        }
        $lines = explode("\r\n", $this->read($end + 4));
        if (!preg_match('~^HTTP/1\.[01] (\d{3})\b~', $lines[0], $match)) {
            throw self::notHttp();
        }
        $fields = [];
        foreach (array_slice($lines, 1, -2) as $line) {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $fields[strtolower($name)] = trim($value);
        }
        return [(int) $match[1], $fields];
    }

    /** @param array<string, string> $fields */
    public function readBody(int $status, array $fields): string
    {
        $length = ctype_digit($fields['content-length'] ?? '') ? (int) $fields['content-length'] : null;
        while (strlen($this->buffer) < min($length ?? PHP_INT_MAX, self::BYTES_MAX) && $this->fill()) {
        }
        // A refusal is one whether or not it says why.
        if ($status === 200 && strlen($this->buffer) < min($length ?? 0, self::BYTES_MAX)) {
            throw self::broken();
        }
        return substr($this->buffer, 0, $length);
    }

    private static function broken(): CrieurException
    {
        return new CrieurException(CrieurResult::BROKEN, 'the server hung up without an answer');
    }

    private static function notHttp(): CrieurException
    {
        return new CrieurException(CrieurResult::PROTOCOL, 'what answers does not speak HTTP');
    }

    private function fill(): bool
    {
        $this->await(forWriting: false);
        $bytes = @fread($this->socket, self::BYTES_MAX);
        $this->buffer .= (string) $bytes;
        return $bytes !== '' && $bytes !== false || !feof($this->socket);
    }

    private function await(bool $forWriting): void
    {
        for (;;) {
            $until = min($this->givesUpAt, $this->deadline);
            $micros = (int) max(0, ($until - hrtime(true) / 1e9) * 1e6);
            [$read, $write, $except] = $forWriting ? [null, [$this->socket], null] : [[$this->socket], null, null];
            // A signal ends the wait early, with `false`.
            if (@stream_select($read, $write, $except, 0, $micros) === 1) {
                return;
            }
            if ($micros > 0) {
                continue;
            }
            if ($until === $this->deadline || ($this->givesUp)()) {
                throw new CrieurException(CrieurResult::TIMEOUT, 'no answer in time');
            }
            // It may have answered while that was found out.
            $this->givesUpAt = INF;
        }
    }
}
