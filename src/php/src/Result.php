<?php

declare(strict_types=1);

namespace Crieur;

/** What became of a notification. */
final class Result
{
    private function __construct(
        /** How many connections it was delivered to; `null` if that isn't known. */
        public readonly ?int $delivered,
        /** How many connections were too slow, and were closed. */
        public readonly int $dropped,
        /** `null` if it was published. */
        public readonly ?Failure $failure,
        /** The same in words, for the log. */
        public readonly ?string $detail,
        /** The server's id of the notification, or the position; `null` if it isn't kept, and from older servers. */
        public readonly ?string $id = null,
        /** Whether the server had it already, by its key, and did not deliver it again. */
        public readonly bool $repeated = false,
        private readonly bool $isWritten = false,
    ) {
    }

    public static function sent(int $delivered, int $dropped = 0, ?string $id = null, bool $repeated = false): self
    {
        return new self($delivered, $dropped, null, null, $id, $repeated);
    }

    public static function at(string $position): self
    {
        return new self(null, 0, null, null, $position);
    }

    /** @param bool $isWritten whether the server may have it as a whole */
    public static function failed(Failure $failure, string $detail, bool $isWritten = false): self
    {
        return new self(null, 0, $failure, $detail, isWritten: $isWritten);
    }

    public function isSent(): bool
    {
        return $this->failure === null;
    }

    /** Whether it was sent and no answer says what became of it, so that it may have been delivered all the same. */
    public function isLost(): bool
    {
        return $this->isWritten
            && in_array($this->failure, [Failure::Timeout, Failure::Broken, Failure::Protocol], true);
    }

    /** @throws PublishException if it was not sent */
    public function orThrow(): self
    {
        return $this->failure === null ? $this : throw new PublishException($this->failure, (string) $this->detail);
    }
}
