<?php

declare(strict_types=1);

/** Why a request can't be carried out: an HTTP status, a fixed word for programs, a text for people. */
final class ApiError extends RuntimeException
{
    public function __construct(public readonly int $status, public readonly string $word, string $detail)
    {
        parent::__construct($detail);
    }
}
