<?php

declare(strict_types=1);

namespace Crieur\Internal;

use Crieur\Failure;
use Crieur\PublishException;

/**
 * A stream whose every operation ends with the time of an attempt.
 *
 * @internal
 */
final class Stream
{
    /** More than any head or frame of an answer has. */
    public const BYTES_MAX = 65536;
    /** More than the receipts of 1000 notifications have. */
    private const BODY_BYTES_MAX = 1 << 20;

    private string $buffer = '';
    private bool $isOver = false;

    /** @param resource $socket */
    private function __construct(private readonly mixed $socket, private Attempt $attempt)
    {
    }

    public static function connect(string $address, float $seconds, Attempt $attempt): self
    {
        $seconds = min($seconds, $attempt->secondsLeft());
        if ($seconds <= 0) {
            throw new PublishException(Failure::Timeout, 'no time left to connect');
        }
        $why = '';
        // What is wrong with a certificate is told by warnings only.
        set_error_handler(static function (int $level, string $warning) use (&$why): bool {
            $why .= ($why === '' ? '' : '; ') . preg_replace('~^\w+\(\): ~', '', $warning);
            return true;
        });
        try {
            $socket = stream_socket_client($address, $code, $error, $seconds);
        } finally {
            restore_error_handler();
        }
        if ($socket === false) {
            throw new PublishException(Failure::Unreachable, "cannot connect to $address: " . ($error ?: $why));
        }
        stream_set_blocking($socket, false);
        // Otherwise a read would wait for more than there is.
        stream_set_read_buffer($socket, 0);
        return new self($socket, $attempt);
    }

    public function __destruct()
    {
        fclose($this->socket);
    }

    /** From here on, the time is that of another attempt. */
    public function beginAttempt(Attempt $attempt): void
    {
        $this->attempt = $attempt;
        $this->isOver = false;
    }

    /** Whether there is something to read, or the end. */
    public function isReadable(): bool
    {
        if ($this->buffer !== '') {
            return true;
        }
        [$read, $write, $except] = [[$this->socket], null, null];
        return @stream_select($read, $write, $except, 0, 0) === 1;
    }

    /** A server that has gone may have said why: that shows when its answer is read. */
    public function write(string $bytes): void
    {
        $offset = 0;
        while ($offset < strlen($bytes)) {
            $this->await(forWriting: true);
            $written = @fwrite($this->socket, $offset === 0 ? $bytes : substr($bytes, $offset));
            if ($written === false) {
                return;
            }
            $offset += $written;
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

    /** @return array{int, array<string, string>} status and fields of a response, behind interim ones */
    public function readHead(): array
    {
        do {
            [$status, $fields] = $this->readAnyHead();
        } while ($status < 200 && $status !== 101);
        return [$status, $fields];
    }

    /** @return array{int, array<string, string>} */
    private function readAnyHead(): array
    {
        while (($end = strpos($this->buffer, "\r\n\r\n")) === false) {
            $isTooLong = strlen($this->buffer) > self::BYTES_MAX;
            $isHttp = str_starts_with('HTTP/1.', substr($this->buffer, 0, 7));
            if ($isTooLong || !$this->fill()) {
                throw $isHttp && !$isTooLong ? self::broken() : self::notHttp();
            }
        }
        $lines = explode("\r\n", $this->read($end + 4));
        if (preg_match('~^HTTP/1\.[01] (\d{3})\b~', $lines[0], $match) !== 1) {
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
        while (strlen($this->buffer) < min($length ?? PHP_INT_MAX, self::BODY_BYTES_MAX) && $this->fill()) {
        }
        // A refusal is one whether or not it says why.
        if ($status === 200 && strlen($this->buffer) < min($length ?? 0, self::BODY_BYTES_MAX)) {
            throw self::broken();
        }
        return substr($this->buffer, 0, $length);
    }

    private static function broken(): PublishException
    {
        return new PublishException(Failure::Broken, 'the server hung up without an answer');
    }

    private static function notHttp(): PublishException
    {
        return new PublishException(Failure::Protocol, 'what answers does not speak HTTP');
    }

    private function fill(): bool
    {
        for (;;) {
            // What has come in time is read. A server that always has something to say doesn't prolong the call.
            if ($this->attempt->secondsLeft() <= 0.0) {
                if ($this->isOver) {
                    throw new PublishException(Failure::Timeout, 'no answer in time');
                }
                $this->isOver = true;
            }
            // Before it waits: TLS may have more in its own buffer, which no event tells.
            $bytes = @fread($this->socket, self::BYTES_MAX);
            if ($bytes !== '' && $bytes !== false) {
                $this->buffer .= $bytes;
                return true;
            }
            if (feof($this->socket)) {
                return false;
            }
            $this->await(forWriting: false);
        }
    }

    private function await(bool $forWriting): void
    {
        for (;;) {
            $micros = (int) ($this->attempt->secondsToWait() * 1e6);
            [$read, $write, $except] = $forWriting ? [null, [$this->socket], null] : [[$this->socket], null, null];
            $why = '';
            set_error_handler(static function (int $level, string $warning) use (&$why): bool {
                $why = $warning;
                return true;
            });
            $ready = stream_select($read, $write, $except, 0, $micros);
            restore_error_handler();
            if ($ready === 1) {
                return;
            }
            // A signal ends the wait early (EINTR is 4). A descriptor that is too large for select() fails each time.
            if ($ready === false && !str_contains($why, '[4]')) {
                throw new PublishException(Failure::Broken, "cannot wait for the server: $why");
            }
            if ($micros === 0) {
                $this->attempt->handleTimeout();
            }
        }
    }
}
