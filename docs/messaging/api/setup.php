<?php

declare(strict_types=1);

/*
 * Makes the tables in the database of the environment, with three users to try it:
 *
 *     DATABASE_DSN=sqlite:messages.sqlite php setup.php PASSWORD
 */

require __DIR__ . '/Database.php';

$password = $argv[1];
Database::open()->create(
    file_get_contents(__DIR__ . '/../schema.sql'),
    ['alice' => ['Alice', $password], 'bob' => ['Bob', $password], 'chloe' => ['Chloé', $password]],
    ['General' => ['alice', 'bob', 'chloe'], 'Production' => ['alice', 'bob'], 'Maintenance' => ['alice', 'chloe']],
);
