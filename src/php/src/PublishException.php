<?php

declare(strict_types=1);

namespace Crieur;

use RuntimeException;

/** What `Result::orThrow()` throws. The message is for the log: it has what the server said, and no secret. */
final class PublishException extends RuntimeException
{
    public function __construct(public readonly Failure $failure, string $detail)
    {
        parent::__construct($detail);
    }
}
