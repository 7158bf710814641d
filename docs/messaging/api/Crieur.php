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
 */
final class Crieur
{
    public const WEBSOCKET = 'websocket';
    public const HTTP = 'http';

    private const PATH = '/publish';
    private const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
    /** The answers of servers that publish over WebSocket only. */
    private const NO_HTTP = [404, 405, 426];

    private const TEXT = 0x1;
    private const CLOSE = 0x8;
    private const PING = 0x9;
    private const PONG = 0xA;

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

    /** @param array<string, mixed> $notification */
    public function publish(array $notification, string $type = 'notification'): CrieurResult
    {
        return $this->publishAll([['type' => $type, 'notification' => $notification]])[0];
    }

    /**
     * Publishes in this order. After a server that can't be reached or takes too long, the rest is not tried.
     *
     * @param list<array{type?: string, notification: array<string, mixed>}> $messages
     * @param ?float $seconds a time-out shorter than the usual one
     * @return list<CrieurResult> one for each message
     */
    public function publishAll(array $messages, ?float $seconds = null): array
    {
        $deadline = self::now() + min($this->totalSeconds, $seconds ?? $this->totalSeconds);
        $results = [];
        $gaveUp = null;
        // The application may have a handler that throws at each warning.
        set_error_handler(static fn (): bool => true);
        try {
            foreach ($messages as $message) {
                $result = $gaveUp ?? $this->attempt($message, $deadline);
                if (in_array($result->error, [CrieurResult::UNREACHABLE, CrieurResult::TIMEOUT], true)) {
                    $gaveUp = $result;
                }
                $results[] = $result;
            }
        } finally {
            restore_error_handler();
        }
        return $results;
    }

    private function attempt(array $message, float $deadline): CrieurResult
    {
        try {
            return $this->send(self::encode($message), $deadline);
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
        $stream = $this->connect($deadline);
        $key = base64_encode(random_bytes(16));
        $stream->write($this->head('GET /') . "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            . "Sec-WebSocket-Key: $key\r\nSec-WebSocket-Version: 13\r\n\r\n");
        [$status, $fields] = $stream->readHead();
        if ($status !== 101) {
            return self::refusal($status, $stream->readBody($fields));
        }
        // Section 4.1 of RFC 6455.
        $accept = base64_encode(sha1($key . self::GUID, true));
        if (($fields['sec-websocket-accept'] ?? '') !== $accept || strtolower($fields['upgrade'] ?? '') !== 'websocket') {
            throw new CrieurException(CrieurResult::PROTOCOL, 'what answers is no WebSocket server');
        }
        $stream->write(self::frame(self::TEXT, $json));
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
        $error = self::errorIn($said ?? '');
        return CrieurResult::failed($error['error'], $error['detail'] ?? "closed with $status " . substr($payload, 2));
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
        $stream->write($this->head('POST ' . self::PATH) . "Content-Type: application/json\r\nConnection: close\r\n"
            . 'Content-Length: ' . strlen($json) . "\r\n\r\n" . $json);
        [$status, $fields] = $stream->readHead();
        if (in_array($status, self::NO_HTTP, true)) {
            return null;
        }
        $body = $stream->readBody($fields);
        return $status === 200 ? self::taken($body) : self::refusal($status, $body);
    }

    // What both share.

    private function connect(float $deadline): CrieurStream
    {
        return CrieurStream::connect($this->address, min($this->connectSeconds, $deadline - self::now()), $deadline);
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
        return CrieurResult::sent($answer['delivered'], (int) ($answer['dropped'] ?? 0));
    }

    private static function refusal(int $status, string $body): CrieurResult
    {
        $error = self::errorIn($body);
        return CrieurResult::failed($error['error'], $error['detail'] ?? "refused with status $status");
    }

    /** @return array{error: string, detail: ?string} */
    private static function errorIn(string $text): array
    {
        $answer = json_decode($text, true);
        $error = is_array($answer) ? $answer['error'] ?? null : null;
        $code = is_array($error) ? (string) ($error['code'] ?? '') : '';
        $detail = is_array($error) ? "$code: " . ($error['detail'] ?? '') : null;
        $isInvalid = in_array($code, ['invalid-notification', 'invalid-json'], true);
        return ['error' => $isInvalid ? CrieurResult::INVALID : CrieurResult::REFUSED, 'detail' => $detail];
    }

    private static function now(): float
    {
        return hrtime(true) / 1e9;
    }
}

/** What has become of a notification. */
final class CrieurResult
{
    /** No server takes this: it is no JSON, or no notification. */
    public const INVALID = 'invalid';
    /** Nobody listens at the address, or not in time. */
    public const UNREACHABLE = 'unreachable';
    /** The server did not answer in time. It may have delivered the notification. */
    public const TIMEOUT = 'timeout';
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
    ) {
    }

    public static function sent(int $delivered, int $dropped): self
    {
        return new self($delivered, $dropped, null, null);
    }

    public static function failed(string $error, string $detail): self
    {
        return new self(null, 0, $error, $detail);
    }

    public function isSent(): bool
    {
        return $this->error === null;
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
    private function __construct(private readonly mixed $socket, private readonly float $deadline)
    {
    }

    public static function connect(string $address, float $seconds, float $deadline): self
    {
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
        return new self($socket, $deadline);
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
            $this->fill() || throw new CrieurException(CrieurResult::PROTOCOL, 'the server hung up without an answer');
        }
        $bytes = substr($this->buffer, 0, $length);
        $this->buffer = substr($this->buffer, $length);
        return $bytes;
    }

    /** @return array{int, array<string, string>} status and fields of a response */
    public function readHead(): array
    {
        while (($end = strpos($this->buffer, "\r\n\r\n")) === false) {
            if (strlen($this->buffer) > self::BYTES_MAX || !$this->fill()) {
                throw new CrieurException(CrieurResult::PROTOCOL, 'what answers does not speak HTTP');
            }
        }
        $lines = explode("\r\n", $this->read($end + 4));
        if (!preg_match('~^HTTP/1\.[01] (\d{3})\b~', $lines[0], $match)) {
            throw new CrieurException(CrieurResult::PROTOCOL, 'what answers does not speak HTTP');
        }
        $fields = [];
        foreach (array_slice($lines, 1, -2) as $line) {
            [$name, $value] = explode(':', $line, 2) + [1 => ''];
            $fields[strtolower($name)] = trim($value);
        }
        return [(int) $match[1], $fields];
    }

    /** @param array<string, string> $fields */
    public function readBody(array $fields): string
    {
        $length = ctype_digit($fields['content-length'] ?? '') ? (int) $fields['content-length'] : null;
        while (strlen($this->buffer) < min($length ?? PHP_INT_MAX, self::BYTES_MAX) && $this->fill()) {
        }
        return substr($this->buffer, 0, $length);
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
        do {
            $micros = (int) (($this->deadline - hrtime(true) / 1e9) * 1e6);
            if ($micros <= 0) {
                throw new CrieurException(CrieurResult::TIMEOUT, 'no answer in time');
            }
            [$read, $write, $except] = $forWriting ? [null, [$this->socket], null] : [[$this->socket], null, null];
            // A signal ends the wait early, with `false`.
            $count = @stream_select($read, $write, $except, 0, $micros);
        } while ($count !== 1);
    }
}
