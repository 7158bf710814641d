<?php
// Posts each body with PHP's curl, all on one connection.
$url = $argv[1];
$curl = curl_init($url);
curl_setopt_array($curl, [
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
    CURLOPT_TIMEOUT => 10,
]);
foreach (array_slice($argv, 2) as $number => $body) {
    curl_setopt($curl, CURLOPT_POSTFIELDS, $body);
    $answer = curl_exec($curl);
    if ($answer === false) {
        fwrite(STDERR, curl_error($curl) . "\n");
        exit(1);
    }
    if (curl_getinfo($curl, CURLINFO_NUM_CONNECTS) !== ($number === 0 ? 1 : 0)) {
        fwrite(STDERR, "the connection was not kept\n");
        exit(1);
    }
    echo curl_getinfo($curl, CURLINFO_RESPONSE_CODE), ' ', $answer, "\n";
}
