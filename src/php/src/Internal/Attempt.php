<?php

declare(strict_types=1);

namespace Crieur\Internal;

use Closure;
use Crieur\Failure;
use Crieur\PublishException;

/**
 * How long an attempt to publish may take, and how far it got.
 *
 * @internal
 */
final class Attempt
{
    /** Whether all of it was written, so that the server may have it. */
    public bool $isWritten = false;

    /** @param ?Closure(): bool $mayBeRepeated */
    private function __construct(
        private readonly float $deadline,
        private float $givesUpAt,
        private readonly ?Closure $mayBeRepeated,
    ) {
    }

    /** Has all of the time. */
    public static function until(float $deadline): self
    {
        return new self($deadline, INF, null);
    }

    /**
     * Gives up halfway, if it may be repeated then. Otherwise it has all of the time.
     *
     * @param Closure(): bool $mayBeRepeated asked once, if it was written
     */
    public static function first(float $deadline, Closure $mayBeRepeated): self
    {
        return new self($deadline, (self::now() + $deadline) / 2, $mayBeRepeated);
    }

    /** The seconds of a clock that is never set. */
    public static function now(): float
    {
        return hrtime(true) / 1e9;
    }

    public function secondsLeft(): float
    {
        return $this->deadline - self::now();
    }

    public function secondsToWait(): float
    {
        return max(0.0, min($this->givesUpAt, $this->deadline) - self::now());
    }

    /** Called when nothing has come in that time. Returns if the attempt goes on. */
    public function handleTimeout(): void
    {
        $isOver = $this->givesUpAt >= $this->deadline;
        if ($isOver || $this->isWritten && $this->mayBeRepeated !== null && ($this->mayBeRepeated)()) {
            throw new PublishException(Failure::Timeout, 'no answer in time');
        }
        // It may have answered while that was found out.
        $this->givesUpAt = INF;
    }
}
