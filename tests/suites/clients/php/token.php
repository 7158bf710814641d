<?php
/*
 * Makes a client's token by hand, as an API without a library would: HS256 over two pieces of
 * Base64 for URLs without padding (RFC 7515 section 3.1, RFC 7519).
 *
 *     php token.php KEY < claims.json
 */

function base64url(string $bytes): string
{
    return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
}

[, $key] = $argv;
$claims = json_decode(stream_get_contents(STDIN), flags: JSON_THROW_ON_ERROR);
$signed = base64url(json_encode(['typ' => 'JWT', 'alg' => 'HS256'])) . '.' . base64url(json_encode($claims));
echo $signed, '.', base64url(hash_hmac('sha256', $signed, $key, binary: true)), "\n";
