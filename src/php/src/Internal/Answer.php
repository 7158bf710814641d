<?php

declare(strict_types=1);

namespace Crieur\Internal;

use Crieur\Failure;
use Crieur\PublishException;
use Crieur\Result;

/**
 * What the server's answers mean.
 *
 * @internal
 */
final class Answer
{
    public static function receipt(mixed $answer): Result
    {
        if (!is_array($answer) || !is_int($answer['delivered'] ?? null)) {
            throw new PublishException(Failure::Protocol, 'the server did not say to how many it was delivered');
        }
        $id = isset($answer['id']) ? self::id($answer) : null;
        $dropped = is_int($answer['dropped'] ?? null) ? $answer['dropped'] : 0;
        return Result::sent($answer['delivered'], $dropped, $id, ($answer['repeated'] ?? false) === true);
    }

    /**
     * The answer to a request with so many notifications.
     *
     * @return list<Result>
     */
    public static function receipts(string $json, int $count): array
    {
        $answer = json_decode($json, true);
        if ($count === 1) {
            return [self::receipt($answer)];
        }
        if (!is_array($answer) || !array_is_list($answer) || count($answer) !== $count) {
            throw new PublishException(Failure::Protocol, 'the server did not give a receipt for each notification');
        }
        return array_map(self::receipt(...), $answer);
    }

    /** The id that an answer has. */
    public static function id(mixed $answer): string
    {
        $id = is_array($answer) ? $answer['id'] ?? null : null;
        $isId = is_string($id) && $id !== '';
        return $isId ? $id : throw new PublishException(Failure::Protocol, 'the server gave something that is no id');
    }

    public static function refusal(int $status, string $body): PublishException
    {
        return self::failure($body, $status === 413, "refused with status $status");
    }

    /** What the server says in `$text` is wrong; else what is seen from here. */
    public static function failure(string $text, bool $isTooBig, string $otherwise): PublishException
    {
        $answer = json_decode($text, true);
        $error = is_array($answer) ? $answer['error'] ?? null : null;
        $isSaid = is_array($error) && is_string($error['code'] ?? null);
        $code = $isSaid ? $error['code'] : '';
        $detail = $isSaid && is_string($error['detail'] ?? null) ? $error['detail'] : '';
        $isInvalid = $isTooBig || in_array($code, ['invalid-notification', 'invalid-json'], true);
        return new PublishException(
            $isInvalid ? Failure::Invalid : Failure::Refused,
            $isSaid ? "$code: $detail" : $otherwise,
        );
    }
}
